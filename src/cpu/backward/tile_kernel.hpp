// The backward kernel's products on tile registers (AMX): overloads for the pairs of bf16 that the schedule
// (kernel.hpp) calls. Of the five products, S = Q K^T and dP = dO V^T are taken for 32 queries and 32 keys at a time,
// and the gradients as dV^T += dO^T P, dK^T += Q^T dS and dQ = dS K: so P and dS are read as they come out of the
// scores. Only the rows of a query tile are transposed once, and dK^T and dV^T when a key block is done.
#pragma once

#include "cpu/backward/kernel.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Left factors read by rows, [rows][words], and right ones, [words][columns].
STROBE_INLINE TileFactor tile_rows_of(const std::uint32_t* at, std::ptrdiff_t stride) {
  return {.at = at, .stride = stride, .step = kTileEdge, .next = kTileEdge * stride};
}
STROBE_INLINE TileFactor tile_columns_of(const std::uint32_t* at, std::ptrdiff_t stride) {
  return {.at = at, .stride = stride, .step = kTileEdge * stride, .next = kTileEdge};
}

/// kTileRows rows of a product that tile registers stored, [kTileSide][kPanel].
STROBE_INLINE void load_rows(const float* sums, int row, RegisterTile& c) {
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) c[r][v] = load(sums + (row + r) * kPanel + v * kLanes);
  }
}

/// score_tile on tile registers: 32 rows of a product at a time, by way of memory.
template <bool kEdited>
void score_tile(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const Scratch& at,
                const PairOperand* kOperand) {
  const BackwardLayout& layout = *task.layout;
  const int stride = layout.score_stride;
  const float factor = finishes_apart(task) ? 1.0f : task.scale;
  const bool wants_dp = wants_scores(task) || task.drops;
  const int steps = block.padded / kPanel * (tile.padded / kTileSide);
  const auto query = staged_rows(at.query, layout.query_tile, layout.head_stride, kOperand);
  const auto grad_output = staged_rows(at.grad_output, layout.query_tile, layout.value_stride, kOperand);
  const int head_words = panel_words<PairOperand>(task.head_dim),
            value_words = panel_words<PairOperand>(task.value_dim);
  alignas(64) float sums[kTileSide * kPanel];
  const auto multiply_rows = [&](const auto& rows, int row, const float* panels, int key, int words) {
    multiply_side<false, 2, 2>(
        {.left = tile_rows_of(rows.rows + row * rows.row_stride, rows.row_stride),
         .right = tile_columns_of(reinterpret_cast<const std::uint32_t*>(panels) + key * words, kPanel),
         .result = sums,
         .result_stride = kPanel,
         .rows = kTileSide,
         .columns = kPanel,
         .depth = words / kTileEdge},
        0, 0);
  };
  int step = 0;
  for (int key = 0; key < block.padded; key += kPanel) {
    for (int first = 0; first < tile.padded; first += kTileSide) {
      prefetch_rows(task, tile, step++, steps);
      RegisterTile c;
      multiply_rows(query, first, at.key_panels, key, head_words);
      for (int row = first; row < first + kTileSide; row += kTileRows) {
        const int index = row * stride + key;
        load_rows(sums, row - first, c);
        probabilities_of<kEdited>(task, c, at.lse + row, at.edits + index, at.probabilities + index, stride);
      }
      if (!wants_dp) continue;
      multiply_rows(grad_output, first, at.value_panels, key, value_words);
      for (int row = first; row < first + kTileSide; row += kTileRows) {
        const int index = row * stride + key;
        load_rows(sums, row - first, c);
        grad_scores_of<kEdited>(task, c, at.delta + row, at.dropout + index, at.probabilities + index,
                                at.grad_scores + index, stride, factor);
      }
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
    const auto p = score_words(task, tile, block, at.probabilities, nullptr, kOperand);
    multiply_in_tiles<true>({.left = tile_rows_of(grad_output.pairs, grad_output.pair_stride),
                             .right = tile_columns_of(p.columns, p.column_stride),
                             .result = at.grad_value,
                             .result_stride = layout.score_stride,
                             .rows = value_dims,
                             .columns = block.padded,
                             .depth = tile.padded / kTileSide});
  }
  if (!wants_scores(task)) return;
  if (finishes_apart(task)) finish_scores(task, tile, block, at);
  const auto ds = score_words(task, tile, block, at.grad_scores, at.edits, kOperand);
  if (task.grad_key.data) {
    multiply_in_tiles<true>({.left = tile_rows_of(query.pairs, query.pair_stride),
                             .right = tile_columns_of(ds.columns, ds.column_stride),
                             .result = at.grad_key,
                             .result_stride = layout.score_stride,
                             .rows = head_dims,
                             .columns = block.padded,
                             .depth = tile.padded / kTileSide});
  }
  if (task.grad_query.data) {
    multiply_in_tiles<false>(
        {.left = tile_rows_of(ds.rows, ds.row_stride),
         .right = tile_columns_of(reinterpret_cast<const std::uint32_t*>(at.key), layout.head_stride),
         .result = at.grad_query,
         .result_stride = layout.head_stride,
         .rows = tile.padded,
         .columns = head_dims,
         .depth = block.padded / kTileSide});
    add_rows(at.grad_query, layout.head_stride, tile.count, task.head_dim, task.grad_query, tile.head, tile.first);
  }
}

/// dK and dV lie transposed.
void add_sums(const BackwardTask& task, const float* sums, int, int keys, int dim, const TaskRows& rows,
              std::int64_t first, const PairOperand*) {
  add_columns(sums, task.layout->score_stride, keys, dim, rows, 0, first);
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
