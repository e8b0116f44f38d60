// The backward schedule: key blocks outside, query tiles inside, five products a tile (FlashAttention-2's algorithm 2,
// arXiv 2307.08691, with dK and dV held for a block of keys and dQ added to memory).
//   S = Q K^T    dP = dO V^T    P = exp(S - LSE)    dS = P (dP - delta)    dV += P^T dO    dK += dS^T Q    dQ += dS K
// Lanes are keys in S and dP (K^T and V^T are transposed once a block), head dimensions in the gradients, so that every
// product broadcasts its left factor and nothing is summed across lanes.
#pragma once

#include "cpu/backward/factors.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

STROBE_INLINE bool wants_scores(const BackwardTask& task) {
  return task.grad_query.data || task.grad_key.data || task.grad_bias.data;
}

/// dS is finished in a pass of its own when something needs it before softcap's derivative and the scale.
STROBE_INLINE bool finishes_apart(const BackwardTask& task) { return task.softcap > 0.0f || task.grad_bias.data; }

/// K and V of a block. The places of dK and dV serve as scratch until they are cleared.
template <class Operand>
void stage_keys(const BackwardTask& task, const KeyBlock& block, const Scratch& at) {
  const BackwardLayout& layout = *task.layout;
  constexpr const Operand* kOperand = nullptr;
  float* const keys = Operand::kPerWord == 1 ? at.key : at.grad_key;
  stage_rows(task.key, 0, block.first, block.count, block.padded, task.head_dim, keys, layout.head_stride);
  forget_unseen(task, block.first, block.count, task.head_dim, keys, layout.head_stride);
  stage_pairs(task, block, keys, at.key, kOperand);
  stage_panels(keys, layout.head_stride, block.padded, task.head_dim, at.key_panels, kOperand);
  stage_rows(task.value, 0, block.first, block.count, block.padded, task.value_dim, at.grad_value, layout.value_stride);
  forget_unseen(task, block.first, block.count, task.value_dim, at.grad_value, layout.value_stride);
  stage_panels(at.grad_value, layout.value_stride, block.padded, task.value_dim, at.value_panels, kOperand);
  if constexpr (Operand::kInTiles) {
    clear_rows(at.grad_value, vectors_of(task.value_dim) * kLanes, block.padded, layout.score_stride);
    clear_rows(at.grad_key, vectors_of(task.head_dim) * kLanes, block.padded, layout.score_stride);
  } else {
    clear_rows(at.grad_value, block.padded, task.value_dim, layout.value_stride);
    clear_rows(at.grad_key, block.padded, task.head_dim, layout.head_stride);
  }
}

/// Q, dO, LSE and delta of a tile. Rows that see no key, and padding, become zero rows with LSE = inf, so that P is 0.
template <class Operand>
void stage_queries(const BackwardTask& task, const QueryTile& tile, const Scratch& at) {
  const BackwardLayout& layout = *task.layout;
  const float infinity = __builtin_huge_valf(), delta_factor = finishes_apart(task) ? 1.0f : task.scale;
  const std::int64_t facts = tile.head * task.row_facts_stride + tile.first;
  for (int row = 0; row < tile.padded; ++row) {
    at.lse[row] = row < tile.count ? task.lse[facts + row] : infinity;
    at.delta[row] = row < tile.count ? task.delta[facts + row] * delta_factor : 0.0f;
  }
  constexpr const Operand* kOperand = nullptr;
  const int rows = layout.query_tile;
  stage_tile(task.query, tile, task.head_dim, at.lse, rows, at.query, layout.head_stride, kOperand);
  stage_tile(task.grad_output, tile, task.value_dim, at.lse, rows, at.grad_output, layout.value_stride, kOperand);
}

using RegisterTile = Floats[kRegisterRows][kPanelVectors];

/// P = exp(S + edits - LSE), where S = Q K^T * unit arrives without the unit: as part of the addition that follows it
/// costs nothing, and no rounding. The change to base 2 comes after the difference, which is small: before it, rounding
/// LSE once more would cost as much as all else together.
template <bool kEdited>
STROBE_INLINE void probabilities_of(const BackwardTask& task, const RegisterTile& s, const float* lse, float* edits,
                                    float* probabilities, int stride) {
  const Floats unit = broadcast(task.softcap > 0.0f ? task.scale / task.softcap : task.scale);
  for (int r = 0; r < kRegisterRows; ++r) {
    const Floats shift = broadcast(lse[r]);
    for (int v = 0; v < kPanelVectors; ++v) {
      Floats x;
      if constexpr (kEdited) {
        float* edit = edits + r * stride + v * kLanes;
        const Floats added = load(edit);
        if (task.softcap > 0.0f) {
          const Floats capped = mul(s[r][v], unit);
          x = fma(tanh(capped), broadcast(task.softcap), added);
          store(edit, mul(tanh_slope(capped), broadcast(task.scale)));
        } else {
          x = fma(s[r][v], unit, added);
        }
        x = sub(x, shift);
      } else {
        x = fma(s[r][v], unit, sub(zero(), shift));
      }
      store(probabilities + r * stride + v * kLanes, exp2(mul(x, broadcast(kLog2E))));
    }
  }
}

/// dS = P (dP - delta), times the scale unless it is finished apart. With dropout, P leaves multiplied for dV.
template <bool kEdited>
STROBE_INLINE void grad_scores_of(const BackwardTask& task, const RegisterTile& dp, const float* delta,
                                  const float* dropout, float* probabilities, float* grad_scores, int stride,
                                  float factor) {
  for (int r = 0; r < kRegisterRows; ++r) {
    const Floats shift = broadcast(delta[r]);
    for (int v = 0; v < kPanelVectors; ++v) {
      const int index = r * stride + v * kLanes;
      const Floats p = load(probabilities + index);
      Floats x = dp[r][v];
      if constexpr (kEdited) {
        if (task.drops) {
          const Floats kept = load(dropout + index);
          x = mul(x, kept);
          store(probabilities + index, mul(p, kept));
        }
      }
      x = mul(p, sub(mul(x, broadcast(factor)), shift));
      if constexpr (kEdited) x = select(equal(p, zero()), zero(), x);
      store(grad_scores + index, x);
    }
  }
}

/// P and dS of a tile, panel by panel: two products, the exponential and the derivative on the way out. First all rows
/// of P, then all of dS, so that one panel at a time stays in the first-level cache.
template <bool kEdited, class Operand>
void score_tile(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                RowsAhead& ahead, const Operand* kOperand) {
  const BackwardLayout& layout = *task.layout;
  const int stride = layout.score_stride;
  const float factor = finishes_apart(task) ? 1.0f : task.scale;
  const bool scores = wants_scores(task);
  const auto query = staged_rows(at.query, layout.query_tile, layout.head_stride, kOperand);
  const auto grad_output = staged_rows(at.grad_output, layout.query_tile, layout.value_stride, kOperand);
  using Word = typename Operand::Word;
  const int products = block.padded / kPanel * (tile.padded / kRegisterRows);  // of S; dP has as many more
  const std::int64_t rows_ahead = (ahead.rows() + products - 1) / products;
  for (int key = 0; key < block.padded; key += kPanel) {
    const auto* key_panel = reinterpret_cast<const Word*>(at.key_panels) + key * panel_words<Operand>(task.head_dim);
    const auto* value_panel =
        reinterpret_cast<const Word*>(at.value_panels) + key * panel_words<Operand>(task.value_dim);
    for (int row = 0; row < tile.padded; row += kRegisterRows) {
      const int index = row * stride + key;
      Floats tile_sums[kRegisterRows][kPanelVectors];
      ahead.ask((rows_ahead + 1) / 2);
      multiply_panel<Operand>(query.rows + row * query.row_stride, query.row_stride, key_panel,
                              words_of<Operand>(task.head_dim), tile_sums);
      probabilities_of<kEdited>(task, tile_sums, at.lse + row, at.edits + index, at.probabilities + index, stride);
    }
    if (!scores && !task.drops) continue;
    for (int row = 0; row < tile.padded; row += kRegisterRows) {
      const int index = row * stride + key;
      Floats tile_sums[kRegisterRows][kPanelVectors];
      ahead.ask((rows_ahead + 1) / 2);
      multiply_panel<Operand>(grad_output.rows + row * grad_output.row_stride, grad_output.row_stride, value_panel,
                              words_of<Operand>(task.value_dim), tile_sums);
      grad_scores_of<kEdited>(task, tile_sums, at.delta + row, at.dropout + index, at.probabilities + index,
                              at.grad_scores + index, stride, factor);
    }
  }
}

/// The bias gradient, then dS through softcap (whose derivative probabilities_of left in edits) and scale.
void finish_scores(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at) {
  const int stride = task.layout->score_stride;
  if (task.grad_bias.data) add_bias_gradient(task, tile, block, at.grad_scores);
  for (int row = 0; row < tile.padded; ++row) {
    for (int j = row * stride; j < row * stride + block.padded; j += kLanes) {
      const Floats derivative = task.softcap > 0.0f ? load(at.edits + j) : broadcast(task.scale);
      store(at.grad_scores + j, mul(load(at.grad_scores + j), derivative));
    }
  }
}

/// The other three products: what a tile adds to dV, dK and dQ.
template <class Operand>
void multiply_gradients(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                        const Operand* kOperand) {
  const BackwardLayout& layout = *task.layout;
  const auto grad_output = staged_rows(at.grad_output, layout.query_tile, layout.value_stride, kOperand);
  const int depth = tile.padded / Operand::kPerWord;
  if (task.grad_value.data) {
    const auto p = score_words(task, tile, block, at.probabilities, nullptr, kOperand);
    multiply<Left::kColumns>(Product<Operand>{.left = p.columns,
                                              .left_stride = p.column_stride,
                                              .right = grad_output.pairs,
                                              .right_stride = grad_output.pair_stride,
                                              .result = at.grad_value,
                                              .result_stride = layout.value_stride,
                                              .rows = block.padded,
                                              .vectors = vectors_of(task.value_dim),
                                              .depth = depth});
  }
  if (!wants_scores(task)) return;
  if (finishes_apart(task)) finish_scores(task, tile, block, at);
  const auto ds = score_words(task, tile, block, at.grad_scores, at.edits, kOperand);
  const auto query = staged_rows(at.query, layout.query_tile, layout.head_stride, kOperand);
  if (task.grad_key.data) {
    multiply<Left::kColumns>(Product<Operand>{.left = ds.columns,
                                              .left_stride = ds.column_stride,
                                              .right = query.pairs,
                                              .right_stride = query.pair_stride,
                                              .result = at.grad_key,
                                              .result_stride = layout.head_stride,
                                              .rows = block.padded,
                                              .vectors = vectors_of(task.head_dim),
                                              .depth = depth});
  }
  if (task.grad_query.data) {
    multiply<Left::kRows>(Product<Operand>{.left = ds.rows,
                                           .left_stride = ds.row_stride,
                                           .right = reinterpret_cast<const typename Operand::Word*>(at.key),
                                           .right_stride = layout.head_stride,
                                           .result = at.grad_query,
                                           .result_stride = layout.head_stride,
                                           .rows = tile.padded,
                                           .vectors = vectors_of(task.head_dim),
                                           .depth = words_of<Operand>(block.count)});
  }
}

template <class Operand>
void tile_gradients(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, Coverage coverage,
                    const Scratch& at, RowsAhead& ahead) {
  constexpr const Operand* kOperand = nullptr;
  const bool edited = coverage == Coverage::kSome || task.bias.data || task.slopes || task.softcap > 0.0f || task.drops;
  if (edited) {
    fill_edits(task, tile, block, coverage, at.edits);
    if (task.drops) fill_dropout(task, tile, block, at.dropout);
    score_tile<true>(task, tile, block, at, ahead, kOperand);
  } else {
    score_tile<false>(task, tile, block, at, ahead, kOperand);
  }
  multiply_gradients(task, tile, block, at, kOperand);
}

/// Query rows [first, last) of a head. Their tiles are staged when they are first met and stay through all key blocks,
/// and dQ is added to memory at the end: rows of one head lie far apart in memory ([batch, length, heads, dim]), each
/// in a page of its own.
struct QuerySpan {
  std::int64_t head, first, last;
  bool staged[kMaxQueryTiles];
};

template <class Operand>
STROBE_INLINE QueryTile tile_of(const BackwardTask& task, const QuerySpan& span, int t) {
  const std::int64_t first = span.first + std::int64_t(t) * task.layout->query_tile;
  const int rows = int(smaller(span.last - first, task.layout->query_tile));
  return {span.head, first, rows, round_up(rows, Operand::kInTiles ? 2 * kLanes : kRegisterRows)};
}

/// Tiles over which the reading ahead of keys is spread, the last ones before their use.
constexpr int kTilesAhead = 4;

/// Rows of the keys' tensors that are needed after block [first, first + keys): what its sums are added to, and the
/// next block. The tile that comes `left` tiles before the last one takes its share.
STROBE_INLINE void add_keys_ahead(const BackwardTask& task, std::int64_t first, int keys, int left, RowsAhead& ahead) {
  if (left >= kTilesAhead) return;
  const std::int64_t begin = first + keys * (kTilesAhead - 1 - left) / kTilesAhead;
  const std::int64_t end = first + keys * (kTilesAhead - left) / kTilesAhead;
  const std::int64_t next = task.layout->key_block, last = smaller(end + next, task.key_end);
  ahead.add(task.grad_key, 0, begin, end, task.head_dim);
  ahead.add(task.grad_value, 0, begin, end, task.value_dim);
  ahead.add(task.key, 0, begin + next, last, task.head_dim);
  ahead.add(task.value, 0, begin + next, last, task.value_dim);
}

/// Stages a tile of the span, and asks for the next one.
template <class Operand>
void begin_tile(const BackwardTask& task, QuerySpan& span, int t, const Scratch& at, RowsAhead& ahead) {
  const QueryTile tile = tile_of<Operand>(task, span, t), next = tile_of<Operand>(task, span, t + 1);
  stage_queries<Operand>(task, tile, at);
  if (task.grad_query.data) clear_rows(at.grad_query, tile.padded, task.head_dim, task.layout->head_stride);
  span.staged[t] = true;
  ahead.add(task.query, next.head, next.first, next.first + next.count, task.head_dim);
  ahead.add(task.grad_output, next.head, next.first, next.first + next.count, task.value_dim);
}

/// The scores of one span of queries.
template <class Operand>
void span_gradients(const BackwardTask& task, QuerySpan& span, const Scratch& at) {
  constexpr const Operand* kOperand = nullptr;
  const BackwardLayout& layout = *task.layout;
  const int tiles = int((span.last - span.first + layout.query_tile - 1) / layout.query_tile);
  for (std::int64_t first = task.key_begin; first < task.key_end; first += layout.key_block) {
    const int keys = int(smaller(task.key_end - first, layout.key_block));
    const KeyBlock block{first, keys, round_up(keys, kPanel)};
    const bool ends = first + keys == task.key_end;
    bool staged = false;
    for (int t = 0; t < tiles; ++t) {
      const QueryTile tile = tile_of<Operand>(task, span, t);
      const KeyBlock part = reached_part(task, tile, block);
      const Coverage coverage = part.count > 0 ? coverage_of(task, tile, part) : Coverage::kNothing;
      const Scratch from = from_tile(task, at, t);
      RowsAhead ahead;
      if (coverage != Coverage::kNothing) {
        if (!staged) stage_keys<Operand>(task, block, at);
        staged = true;
        if (!span.staged[t]) begin_tile<Operand>(task, span, t, from, ahead);
        add_keys_ahead(task, first, keys, tiles - 1 - t, ahead);
        if (ends) ahead.add(task.grad_query, tile.head, tile.first, tile.first + tile.count, task.head_dim);
        tile_gradients<Operand>(task, tile, part, coverage, from_key<Operand>(task, from, int(part.first - first)),
                                ahead);
      }
      if (ends && span.staged[t] && task.grad_query.data) {
        add_rows(from.grad_query, layout.head_stride, tile.count, task.head_dim, task.grad_query, tile.head,
                 tile.first);
      }
    }
    if (!staged) continue;
    if (task.grad_key.data) {
      add_sums(task, at.grad_key, layout.head_stride, keys, task.head_dim, task.grad_key, first, kOperand);
    }
    if (task.grad_value.data) {
      add_sums(task, at.grad_value, layout.value_stride, keys, task.value_dim, task.grad_value, first, kOperand);
    }
  }
}

template <class Operand>
void gradients(const BackwardTask& task) {
  const Scratch at(task);
  const std::int64_t queries = task.query_end - task.query_begin, most = task.layout->query_rows;
  const std::int64_t spans = (queries + most - 1) / most, tile = task.layout->query_tile;
  const std::int64_t rows = ((queries + spans - 1) / spans + tile - 1) / tile * tile;  // even shares
  for (std::int64_t head = 0; head < task.group; ++head) {
    for (std::int64_t first = task.query_begin; first < task.query_end; first += rows) {
      QuerySpan span{.head = head, .first = first, .last = smaller(first + rows, task.query_end), .staged = {}};
      span_gradients<Operand>(task, span, at);
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
