// Where the backward pass keeps things: tile sizes and the buffers of one worker, and what all workers share. Scalar
// code for the driver alone.
#pragma once

#include <algorithm>

#include "base/problem.hpp"
#include "cpu/backward/task.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {

inline constexpr std::int64_t kKeyBlock = 256;      // as many as a megabyte of cache holds with K, V, dK and dV
inline constexpr std::int64_t kWideKeyBlock = 128;  // with dims above kWideDim
inline constexpr std::int64_t kWideDim = 128;
inline constexpr std::int64_t kLeastKeyBlock = 64;
inline constexpr std::int64_t kSpanBytes = 2 << 20;  // Q, dQ and dO of a span of queries, at most

inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Keys of a block: whole register tiles, or whole columns of the block mask, so that empty tiles can be left out.
/// Dropout draws for four neighbouring keys at once, so blocks start at multiples of four.
inline std::int64_t key_block_of(const Problem& problem, const BackwardUnit& unit) {
  const bool wide = std::max(problem.head_dim, problem.value_dim) > kWideDim;
  const std::int64_t largest = (wide ? kWideKeyBlock : kKeyBlock) / unit.panel * unit.panel;
  const std::int64_t most = std::clamp<std::int64_t>(round_up(problem.key_length, unit.panel), unit.panel, largest);
  const std::int64_t columns = problem.has_block_mask ? problem.block_columns : 0;
  if (columns == 0 || columns % 4 != 0 || columns > most) return most;
  return columns >= kLeastKeyBlock ? columns : kLeastKeyBlock / columns * columns;
}

/// Query rows that are staged together, at most: whole tiles, and no more than the problem has.
inline std::int64_t query_rows_of(const Problem& problem, const BackwardLayout& layout) {
  const std::int64_t row_bytes = std::int64_t(sizeof(float)) * (2 * layout.head_stride + layout.value_stride);
  const std::int64_t tiles = std::clamp<std::int64_t>(kSpanBytes / (row_bytes * layout.query_tile), 1, kMaxQueryTiles);
  return std::clamp<std::int64_t>(round_up(problem.query_length, layout.query_tile), layout.query_tile,
                                  tiles * layout.query_tile);
}

inline BackwardLayout layout_of(const Problem& problem, const BackwardUnit& unit) {
  const std::int64_t head_dim = round_up(problem.head_dim, unit.lanes);
  const std::int64_t value_dim = round_up(problem.value_dim, unit.lanes);
  BackwardLayout layout{};
  layout.key_block = int(key_block_of(problem, unit));
  layout.query_tile = unit.query_tile(problem.query_type) / unit.tile_rows * unit.tile_rows;
  const std::int64_t keys = round_up(layout.key_block, unit.panel);
  layout.head_stride = int(head_dim) + kStridePadding;
  layout.value_stride = int(value_dim) + kStridePadding;
  layout.score_stride = int(keys) + kStridePadding;
  layout.query_rows = int(query_rows_of(problem, layout));
  layout.pieces = unit.pieces(problem.query_type);
  const bool splits = layout.pieces > 1;
  const auto place = [&](std::int64_t& offset, std::int64_t rows, std::int64_t stride) {
    offset = layout.floats;
    layout.floats += round_up(rows * stride, 16);
  };
  // Pairs of bf16: half a float a piece, in whole vectors of pairs.
  const auto panel_row = [&](std::int64_t dim) {
    return splits ? std::max(dim, layout.pieces * round_up(dim / 2, unit.lanes)) : dim;
  };
  place(layout.key, keys, std::max(layout.head_stride, layout.pieces * layout.head_stride / 2));
  place(layout.key_panels, keys, panel_row(head_dim));
  place(layout.value_panels, keys, panel_row(value_dim));
  // Room for the rows, or for the transposed.
  place(layout.grad_key, 1, std::max(keys * layout.head_stride, head_dim * layout.score_stride));
  place(layout.grad_value, 1, std::max(keys * layout.value_stride, value_dim * layout.score_stride));
  place(layout.query, layout.query_rows, layout.pieces * layout.head_stride);
  place(layout.grad_query, layout.query_rows, layout.head_stride);
  place(layout.grad_output, layout.query_rows, layout.pieces * layout.value_stride);
  place(layout.probabilities, layout.query_tile, layout.score_stride);
  place(layout.grad_scores, layout.query_tile, layout.score_stride);
  place(layout.edits, layout.query_tile, layout.score_stride);
  place(layout.dropout, problem.dropout > 0.0f ? layout.query_tile : 0, layout.score_stride);
  place(layout.score_pieces, splits ? 3 * layout.pieces : 0, layout.query_tile * keys / 2);
  place(layout.lse, layout.query_rows, 1);
  place(layout.delta, layout.query_rows, 1);
  return layout;
}

/// Float32 memory that all workers share, in floats from its start.
struct SharedLayout {
  std::int64_t lse, delta;  // [batch, query_heads, query_length], packed [query_heads, rows]
  std::int64_t grad_sink;   // [batch, query_heads]
  std::int64_t grad_query, grad_key, grad_value, grad_bias;  // of 16-bit gradients
  std::int64_t floats;
};

inline std::int64_t query_rows(const Problem& problem) {
  return problem.packed_queries ? problem.query_length : problem.batch * problem.query_length;
}
inline std::int64_t key_rows(const Problem& problem) {
  return problem.packed_keys ? problem.key_length : problem.batch * problem.key_length;
}

/// Sizes of the bias gradient's own axes.
struct BiasShape {
  std::int64_t batch, heads, queries, keys;
};
inline BiasShape bias_shape(const Problem& problem, std::int64_t queries, std::int64_t keys) {
  const bool(&broadcasts)[4] = problem.bias_broadcasts;
  return {broadcasts[0] ? 1 : problem.batch, broadcasts[1] ? 1 : problem.query_heads, broadcasts[2] ? 1 : queries,
          broadcasts[3] ? 1 : keys};
}

/// Packed: the bias is as large as the longest sequence, which only its offsets tell.
inline BiasShape bias_shape(const Problem& problem, const Buffers& buffers) {
  std::int64_t queries = 0, keys = 0;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const Sequence s = sequence_of(problem, buffers, b);
    queries = std::max(queries, s.stored_queries);
    keys = std::max(keys, s.stored_keys);
  }
  return bias_shape(problem, queries, keys);
}

inline SharedLayout shared_layout_of(const Problem& problem) {
  SharedLayout layout{};
  const auto place = [&](std::int64_t& offset, bool needed, std::int64_t floats) {
    offset = layout.floats;
    if (needed) layout.floats += round_up(floats, 16);
  };
  const bool rounds = problem.query_type != DataType::kFloat32;
  const std::int64_t queries = query_rows(problem) * problem.query_heads, keys = key_rows(problem) * problem.kv_heads;
  const BiasShape bias = bias_shape(problem, problem.query_length, problem.key_length);
  place(layout.lse, true, queries);
  place(layout.delta, true, queries);
  place(layout.grad_sink, problem.wants_grad_sink, problem.batch * problem.query_heads);
  place(layout.grad_query, problem.wants_grad_query && rounds, queries * problem.head_dim);
  place(layout.grad_key, problem.wants_grad_key && rounds, keys * problem.head_dim);
  place(layout.grad_value, problem.wants_grad_value && rounds, keys * problem.value_dim);
  place(layout.grad_bias, problem.wants_grad_bias && problem.grad_bias_type != DataType::kFloat32,
        bias.batch * bias.heads * bias.queries * bias.keys);
  return layout;
}

}  // namespace strobe::cpu
