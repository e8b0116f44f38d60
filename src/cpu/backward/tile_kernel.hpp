// The backward kernel's products on tile registers (AMX): overloads for the pairs of bf16 that the schedule
// (kernel.hpp) calls. Of the five products, S = Q K^T and dP = dO V^T are taken for 32 queries and 32 keys at a time,
// and the gradients as dV^T += dO^T P, dK^T += Q^T dS and dQ = dS K: so P and dS are read as they come out of the
// scores. Only the rows of a query tile are transposed once, and dK^T and dV^T when a key block is done.
#pragma once

#include "cpu/backward/kernel.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Query rows of a tile.
constexpr int kPairTileRows = 128;

/// Left factors read by rows, [rows][words], and right ones, [words][columns].
STROBE_INLINE TileFactor tile_rows_of(const std::uint32_t* at, std::ptrdiff_t stride) {
  return {.at = at, .stride = stride, .step = kTileEdge, .next = kTileEdge * stride};
}
STROBE_INLINE TileFactor tile_columns_of(const std::uint32_t* at, std::ptrdiff_t stride) {
  return {.at = at, .stride = stride, .step = kTileEdge * stride, .next = kTileEdge};
}

/// S = Q K^T and dP = dO V^T for 32 queries and 32 keys, [kTileSide][kPanel].
struct ScoreProducts {
  alignas(64) float s[kTileSide * kPanel];
  alignas(64) float dp[kTileSide * kPanel];
};

/// kRegisterRows rows of a product.
STROBE_INLINE void load_rows(const float* product, int row, RegisterTile& c) {
  for (int r = 0; r < kRegisterRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) c[r][v] = load(product + (row + r) * kPanel + v * kLanes);
  }
}

/// P and dS where nothing is done to the scores, rounded as they come: what probabilities_of and grad_scores_of
/// compute.
STROBE_INLINE void round_plain_scores(const BackwardTask& task, const ScoreProducts& products, const float* lse,
                                      const float* delta, float* probabilities, float* grad_scores, float* rows,
                                      int stride) {
  const Floats unit = broadcast(task.scale);
  for (int row = 0; row < kTileSide; row += 2) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Floats p[2], ds[2];
      for (int i = 0; i < 2; ++i) {
        const int from = (row + i) * kPanel + v * kLanes;
        const Floats x = fma(load(products.s + from), unit, broadcast(-lse[row + i]));
        p[i] = exp2_coarse(mul(x, broadcast(kLog2E)));
        ds[i] = mul(p[i], fma(load(products.dp + from), unit, broadcast(-delta[row + i])));
      }
      const int to = row * stride + v * kLanes;
      auto* const low = reinterpret_cast<std::uint16_t*>(rows + row * stride) + v * kLanes;
      store_scores(p[0], p[1], probabilities + to, nullptr, nullptr);
      store_scores(ds[0], ds[1], grad_scores + to, low, low + 2 * stride);
    }
  }
}

/// score_tile on tile registers. P is left rounded, and dS unless it is finished apart.
template <bool kEdited>
void score_tile(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                RowsAhead& ahead, const PairOperand* kOperand) {
  const BackwardLayout& layout = *task.layout;
  const int stride = layout.score_stride;
  const bool apart = finishes_apart(task), scores = wants_scores(task), wants_dp = scores || task.drops;
  const auto query = staged_rows(at.query, layout.query_tile, layout.head_stride, kOperand);
  const auto grad_output = staged_rows(at.grad_output, layout.query_tile, layout.value_stride, kOperand);
  const int head_words = panel_words<PairOperand>(task.head_dim);
  const int value_words = panel_words<PairOperand>(task.value_dim);
  const int steps = block.padded / kPanel * (tile.padded / kTileSide);
  const std::int64_t rows_ahead = (ahead.rows() + steps - 1) / steps;
  ScoreProducts products;
  const auto multiply_rows = [&](const auto& rows, int row, const float* panels, int key, int words, float* product) {
    multiply_side<PairOperand, false, 2, 2>(
        {.left = tile_rows_of(rows.rows + row * rows.row_stride, rows.row_stride),
         .right = tile_columns_of(reinterpret_cast<const std::uint32_t*>(panels) + key * words, kPanel),
         .result = product,
         .result_stride = kPanel,
         .rows = kTileSide,
         .columns = kPanel,
         .depth = words / kTileEdge},
        0, 0);
  };
  for (int key = 0; key < block.padded; key += kPanel) {
    for (int first = 0; first < tile.padded; first += kTileSide) {
      ahead.ask(rows_ahead);
      multiply_rows(query, first, at.key_panels, key, head_words, products.s);
      if (wants_dp) multiply_rows(grad_output, first, at.value_panels, key, value_words, products.dp);
      const int corner = first * stride + key;
      float* const rows = at.edits + first * stride + key / 2;  // elements of two bytes
      if (!kEdited && scores && !apart) {
        round_plain_scores(task, products, at.lse + first, at.delta + first, at.probabilities + corner,
                           at.grad_scores + corner, rows, stride);
        continue;
      }
      for (int row = first; row < first + kTileSide; row += kRegisterRows) {
        const int index = row * stride + key;
        RegisterTile c;
        load_rows(products.s, row - first, c);
        probabilities_of<kEdited>(task, c, at.lse + row, at.edits + index, at.probabilities + index, stride);
        if (!wants_dp) continue;
        load_rows(products.dp, row - first, c);
        grad_scores_of<kEdited>(task, c, at.delta + row, at.dropout + index, at.probabilities + index,
                                at.grad_scores + index, stride, apart ? 1.0f : task.scale);
      }
      round_scores(at.probabilities + corner, nullptr, stride, kTileSide, kPanel);
      if (scores && !apart) round_scores(at.grad_scores + corner, rows, stride, kTileSide, kPanel);
    }
  }
}

/// The gradients of a tile's keys and queries from P and dS.
void multiply_gradients(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                        const PairOperand* kOperand) {
  const BackwardLayout& layout = *task.layout;
  const auto query = staged_rows(at.query, layout.query_tile, layout.head_stride, kOperand);
  const auto grad_output = staged_rows(at.grad_output, layout.query_tile, layout.value_stride, kOperand);
  const int head_dims = vectors_of(task.head_dim) * kLanes, value_dims = vectors_of(task.value_dim) * kLanes;
  if (task.grad_value.data) {
    const auto p = rounded_scores(task, at.probabilities, nullptr);
    multiply_in_tiles<PairOperand>({.left = tile_rows_of(grad_output.pairs, grad_output.pair_stride),
                                    .right = tile_columns_of(p.columns, p.column_stride),
                                    .result = at.grad_value,
                                    .result_stride = layout.score_stride,
                                    .rows = value_dims,
                                    .columns = block.padded,
                                    .depth = tile.padded / kTileSide});
  }
  if (!wants_scores(task)) return;
  if (finishes_apart(task)) {
    finish_scores(task, tile, block, at);
    round_scores(at.grad_scores, at.edits, layout.score_stride, tile.padded, block.padded);
  }
  const auto ds = rounded_scores(task, at.grad_scores, at.edits);
  if (task.grad_key.data) {
    multiply_in_tiles<PairOperand>({.left = tile_rows_of(query.pairs, query.pair_stride),
                                    .right = tile_columns_of(ds.columns, ds.column_stride),
                                    .result = at.grad_key,
                                    .result_stride = layout.score_stride,
                                    .rows = head_dims,
                                    .columns = block.padded,
                                    .depth = tile.padded / kTileSide});
  }
  if (task.grad_query.data) {
    multiply_in_tiles<PairOperand>(
        {.left = tile_rows_of(ds.rows, ds.row_stride),
         .right = tile_columns_of(reinterpret_cast<const std::uint32_t*>(at.key), layout.head_stride),
         .result = at.grad_query,
         .result_stride = layout.head_stride,
         .rows = tile.padded,
         .columns = head_dims,
         .depth = block.padded / kTileSide});
  }
}

/// dK and dV lie transposed.
void add_sums(const BackwardTask& task, const float* sums, int, int keys, int dim, const TaskRows& rows,
              std::int64_t first, const PairOperand*) {
  add_columns(sums, task.layout->score_stride, keys, dim, rows, 0, first);
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
