// The backward kernel's products on tile registers where factors are sums of bf16 values (SplitOperand): overloads for
// the schedule (kernel.hpp). The products are tile_kernel.hpp's, each of them several of bf16. Every factor lies tile
// register by tile register, the pieces of each one after another, so that a tile is one kilobyte of memory.
#pragma once

#include "cpu/backward/split_factors.hpp"
#include "cpu/backward/tile_kernel.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// A factor that lies in tiles: `step` and `next` count tiles.
template <int kParts>
STROBE_INLINE TileFactor split_factor(const float* at, int step, int next) {
  return {.at = reinterpret_cast<const std::uint32_t*>(at),
          .stride = kTileEdge,
          .step = kParts * kTileWords * std::ptrdiff_t(step),
          .next = kParts * kTileWords * std::ptrdiff_t(next)};
}

STROBE_INLINE int word_tiles(int dim) { return panel_words<PairOperand>(dim) / kTileEdge; }

/// Where the pieces of P and dS lie: P and dS as [key / 16][query / 32] tiles of pairs of queries, dS as
/// [query / 16][key / 32] tiles of pairs of keys too.
template <int kParts>
struct SplitScores {
  SplitScores(const BackwardTask& task, const Scratch& at)
      : query_steps(task.layout->query_tile / kTileSide),
        key_steps((task.layout->score_stride - kStridePadding) / kTileSide),
        p(at.score_pieces),
        columns(p + kParts * kTileWords * (2 * key_steps * query_steps)),
        rows(columns + kParts * kTileWords * (2 * key_steps * query_steps)) {}

  /// Of the pair of queries from `row` on and sixteen keys from `key` on; the first query's row of 32 keys.
  std::ptrdiff_t column_offset(int row, int key) const {
    return kParts * kTileWords * std::ptrdiff_t(key / kTileEdge * query_steps + row / kTileSide) +
           row % kTileSide / 2 * kTileEdge;
  }
  std::ptrdiff_t row_offset(int row, int key) const {
    return kParts * kTileWords * std::ptrdiff_t(row / kTileEdge * key_steps + key / kTileSide) +
           row % kTileEdge * kTileEdge;
  }

  int query_steps, key_steps;
  float *p, *columns, *rows;
};

using ScorePair = Floats[2][kPanelVectors];  // of two neighbouring queries

/// Cuts scores of two queries into pieces: pairs of queries, `next` words from one vector of keys to the next, and,
/// where wanted, rows of pairs of keys. NaN stays, infinity becomes NaN.
template <int kParts>
STROBE_INLINE void cut_scores(ScorePair& x, float* columns, std::ptrdiff_t next, float* rows) {
  for (int piece = 0; piece < kParts; ++piece) {
    for (int v = 0; v < kPanelVectors; ++v) {
      store_pairs(reinterpret_cast<std::uint32_t*>(columns + v * next + piece * kTileWords),
                  pair_cut(x[0][v], x[1][v]));
    }
    for (int i = 0; i < 2; ++i) {
      const Floats low = cut(x[i][0]), high = cut(x[i][1]);
      if (rows != nullptr) {
        store_pairs(reinterpret_cast<std::uint32_t*>(rows + i * kTileEdge + piece * kTileWords), round_both(low, high));
      }
      x[i][0] = sub(x[i][0], low);
      x[i][1] = sub(x[i][1], high);
    }
  }
}
static_assert(kPanelVectors == 2, "a row of 32 keys is one row of a tile register");

/// Query rows whose scores are multiplied before anything else is done to them: whenever tile registers multiply after
/// other work, the first products are slow.
constexpr int kStripRows = 64;

/// S = Q K^T and dP = dO V^T for a strip of queries and 32 keys.
struct StripProducts {
  alignas(64) float s[kStripRows * kPanel];
  alignas(64) float dp[kStripRows * kPanel];
};

/// P and dS of rows [first, first + rows) where nothing is done to the scores: what probabilities_of and grad_scores_of
/// compute.
template <int kParts>
STROBE_INLINE void cut_plain_scores(const BackwardTask& task, const StripProducts& products, const Scratch& at,
                                    const SplitScores<kParts>& to, int first, int rows, int key) {
  const Floats unit = broadcast(task.scale);
  const std::ptrdiff_t next = to.column_offset(0, kTileEdge);
  for (int row = 0; row < rows; row += 2) {
    ScorePair p, ds;
    for (int i = 0; i < 2; ++i) {
      const Floats lse = broadcast(at.lse[first + row + i]), delta = broadcast(at.delta[first + row + i]);
      for (int v = 0; v < kPanelVectors; ++v) {
        const int from = (row + i) * kPanel + v * kLanes;
        const Floats x = fma(load(products.s + from), unit, sub(zero(), lse));
        p[i][v] = exp2(mul(x, broadcast(kLog2E)));
        ds[i][v] = mul(p[i][v], fma(load(products.dp + from), unit, sub(zero(), delta)));
      }
    }
    const std::ptrdiff_t columns = to.column_offset(first + row, key);
    cut_scores<kParts>(p, to.p + columns, next, nullptr);
    cut_scores<kParts>(ds, to.columns + columns, next, to.rows + to.row_offset(first + row, key));
  }
}

/// The same of scores that lie in memory, [rows][stride].
template <int kParts>
STROBE_INLINE void cut_stored_scores(const float* from, int stride, const SplitScores<kParts>& to, float* columns,
                                     float* rows, int first, int count, int key) {
  const std::ptrdiff_t next = to.column_offset(0, kTileEdge);
  for (int row = first; row < first + count; row += 2) {
    ScorePair x;
    for (int i = 0; i < 2; ++i) {
      for (int v = 0; v < kPanelVectors; ++v) x[i][v] = load(from + (row + i) * stride + key + v * kLanes);
    }
    cut_scores<kParts>(x, columns + to.column_offset(row, key), next,
                       rows != nullptr ? rows + to.row_offset(row, key) : nullptr);
  }
}

template <bool kEdited, int kParts>
void score_tile(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                RowsAhead& ahead, const SplitOperand<kParts>*) {
  const int stride = task.layout->score_stride;
  const bool apart = finishes_apart(task), scores = wants_scores(task), wants_dp = scores || task.drops;
  const SplitScores<kParts> split(task, at);
  const int strips = (tile.padded + kStripRows - 1) / kStripRows;
  const std::int64_t steps = std::int64_t(block.padded / kPanel) * strips;
  const std::int64_t rows_ahead = (ahead.rows() + steps - 1) / steps;
  StripProducts products;
  const auto multiply_strip = [&](const float* left, const float* right, int dim, int first, int rows, int key,
                                  float* product) {
    const int depth = word_tiles(dim);
    const TileMatrices strip{.left = split_factor<kParts>(left + kParts * first * depth * kTileEdge, 1, depth),
                             .right = split_factor<kParts>(right + kParts * key * depth * kTileEdge, 1, depth),
                             .result = product,
                             .result_stride = kPanel,
                             .rows = rows,
                             .columns = kPanel,
                             .depth = depth};
    for (int row = 0; row < rows; row += kTileSide) {
      multiply_side<SplitOperand<kParts>, false, 2, 2, kParts == 2>(strip, row, 0);
    }
  };
  for (int key = 0; key < block.padded; key += kPanel) {
    for (int first = 0; first < tile.padded; first += kStripRows) {
      const int rows = int(smaller(tile.padded - first, kStripRows));
      ahead.ask(rows_ahead);
      multiply_strip(at.query, at.key_panels, task.head_dim, first, rows, key, products.s);
      if (wants_dp) multiply_strip(at.grad_output, at.value_panels, task.value_dim, first, rows, key, products.dp);
      if (!kEdited && scores && !apart) {
        cut_plain_scores(task, products, at, split, first, rows, key);
        continue;
      }
      for (int row = 0; row < rows; row += kRegisterRows) {
        const int index = (first + row) * stride + key;
        RegisterTile c;
        load_rows(products.s, row, c);
        probabilities_of<kEdited>(task, c, at.lse + first + row, at.edits + index, at.probabilities + index, stride);
        if (!wants_dp) continue;
        load_rows(products.dp, row, c);
        grad_scores_of<kEdited>(task, c, at.delta + first + row, at.dropout + index, at.probabilities + index,
                                at.grad_scores + index, stride, apart ? 1.0f : task.scale);
      }
      cut_stored_scores(at.probabilities, stride, split, split.p, nullptr, first, rows, key);
      if (scores && !apart) {
        cut_stored_scores(at.grad_scores, stride, split, split.columns, split.rows, first, rows, key);
      }
    }
  }
}

template <int kParts>
void multiply_gradients(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                        const SplitOperand<kParts>*) {
  const BackwardLayout& layout = *task.layout;
  const SplitScores<kParts> split(task, at);
  const int head_vectors = vectors_of(task.head_dim), query_steps = split.query_steps;
  const auto multiply_columns = [&](const float* left, const float* right, int dim, float* result) {
    multiply_in_tiles<SplitOperand<kParts>>(
        {.left = split_factor<kParts>(left + split_row_words<kParts>(dim, layout.query_tile), 1, query_steps),
         .right = split_factor<kParts>(right, 1, query_steps),
         .result = result,
         .result_stride = layout.score_stride,
         .rows = vectors_of(dim) * kLanes,
         .columns = block.padded,
         .depth = tile.padded / kTileSide});
  };
  if (task.grad_value.data) multiply_columns(at.grad_output, split.p, task.value_dim, at.grad_value);
  if (!wants_scores(task)) return;
  if (finishes_apart(task)) {
    finish_scores(task, tile, block, at);
    for (int key = 0; key < block.padded; key += kPanel) {
      cut_stored_scores(at.grad_scores, layout.score_stride, split, split.columns, split.rows, 0, tile.padded, key);
    }
  }
  if (task.grad_key.data) multiply_columns(at.query, split.columns, task.head_dim, at.grad_key);
  if (task.grad_query.data) {
    multiply_in_tiles<SplitOperand<kParts>>({.left = split_factor<kParts>(split.rows, 1, split.key_steps),
                                             .right = split_factor<kParts>(at.key, head_vectors, 1),
                                             .result = at.grad_query,
                                             .result_stride = layout.head_stride,
                                             .rows = tile.padded,
                                             .columns = head_vectors * kLanes,
                                             .depth = block.padded / kTileSide});
  }
}

/// dK and dV lie transposed.
template <int kParts>
void add_sums(const BackwardTask& task, const float* sums, int, int keys, int dim, const TaskRows& rows,
              std::int64_t first, const SplitOperand<kParts>*) {
  add_columns(sums, task.layout->score_stride, keys, dim, rows, 0, first);
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
