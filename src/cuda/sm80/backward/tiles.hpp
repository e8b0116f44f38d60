// The tuning table of the backward kernel: tile sizes for head dimensions and architectures. Plain constants, read by
// the kernel when it is compiled and by the host when it plans. What was measured to choose them is in README.md.
#pragma once

#include "cuda/params.hpp"
#include "cuda/sm80/forward/tiles.hpp"  // built_dim, has_small_shared_memory

namespace strobe::cuda::sm80 {

struct BackwardTile {
  int pairs;      // pairs of warps, each for 16 * row_tiles keys: one warp makes P and dV, the other dP, dS and dK
  int row_tiles;  // the more, the more often a query fragment is used once it is in registers
  int query_tile;
  int stages;      // query tiles in shared memory
  int grad_rows;   // dQ of a tile is shared out among the warps: so many groups of rows,
  int grad_parts;  // and each warp makes its share in so many parts
  int blocks;      // blocks that share a multiprocessor

  constexpr int key_block() const { return 16 * pairs * row_tiles; }
  constexpr int threads() const { return 64 * pairs; }
  constexpr int grad_columns() const { return 2 * pairs / grad_rows; }
};

/// The rows of the table by the larger head dimension: where shared memory is large (sm_90), middling (sm_80: 163 KiB)
/// and small (99 KiB), each {pairs, row_tiles, query_tile, stages, grad_rows, grad_parts, blocks}.
constexpr BackwardTile large_tile(int dim) {
  if (dim <= 64) return {4, 2, 128, 2, 4, 1, 1};
  if (dim <= 96) return {4, 2, 64, 2, 4, 1, 1};
  if (dim <= 128) return {4, 2, 64, 2, 2, 1, 1};
  if (dim <= 192) return {4, 1, 64, 2, 2, 1, 1};
  return {4, 1, 64, 2, 2, 2, 1};
}
constexpr BackwardTile middling_tile(int dim) {
  if (dim <= 32) return {4, 2, 64, 2, 4, 1, 1};
  if (dim <= 64) return {4, 2, 64, 2, 2, 1, 1};
  if (dim <= 96) return {4, 2, 64, 2, 4, 1, 1};
  if (dim <= 128) return {4, 2, 32, 2, 2, 1, 1};
  return {4, 1, 32, 2, 2, 1, 1};
}
constexpr BackwardTile small_tile(int dim) {
  if (dim <= 32) return {4, 2, 64, 2, 4, 1, 1};
  if (dim <= 64) return {4, 2, 32, 2, 2, 1, 1};
  if (dim <= 128) return {2, 2, 32, 2, 2, 1, 1};
  if (dim <= 192) return {4, 1, 32, 1, 2, 1, 1};
  return {2, 1, 32, 1, 2, 2, 1};
}

/// For float32.
constexpr BackwardTile wide_backward_tile(int dim, bool small) {
  if (dim <= 32) return {4, 1, 64, 2, 4, 1, 1};
  if (dim <= 64) return small ? BackwardTile{4, 1, 32, 2, 2, 1, 1} : BackwardTile{4, 1, 64, 2, 4, 1, 1};
  if (dim <= 96) return {2, 1, 32, 2, 2, 1, 1};
  if (dim <= 128) return small ? BackwardTile{2, 1, 32, 1, 2, 1, 1} : BackwardTile{4, 1, 32, 2, 2, 1, 1};
  if (dim <= 192) return small ? BackwardTile{2, 1, 16, 1, 1, 1, 1} : BackwardTile{2, 1, 32, 1, 2, 1, 1};
  return small ? BackwardTile{1, 1, 16, 1, 1, 2, 1} : BackwardTile{2, 1, 32, 1, 2, 2, 1};
}

/// Kernels with all features take small tiles: their text grows with a warp's scores, and the time to compile with it.
constexpr BackwardTile backward_tile(int element_bytes, int head_dim, int value_dim, int features, int architecture) {
  const int dim = head_dim > value_dim ? head_dim : value_dim;
  if (element_bytes == 4) return wide_backward_tile(dim, has_small_shared_memory(architecture));
  if (has_small_shared_memory(architecture)) return small_tile(dim);
  if (features == kAllFeatures && dim <= 64) return small_tile(dim);
  return features == kAllFeatures || architecture == 80 ? middling_tile(dim) : large_tile(dim);
}

/// What is known of a query tile's rows, as floats: LSE, delta, and 1 where something must be cleared (unseen.cuh).
constexpr int fact_floats(int query_tile) { return 2 * query_tile + 4; }

/// Whether a kernel has its bias brought to shared memory in the background: where it is the only option, for 16-bit
/// types, in warps of at least 32 keys.
constexpr bool stages_bias(int element_bytes, const BackwardTile& tile, int features) {
  return features == kBias && element_bytes == 2 && tile.row_tiles == 2;
}

/// Where things lie in a block's shared memory: bytes from its start.
struct BackwardShared {
  int keys, values;           // [key_block, dim]
  int queries, grad_outputs;  // [stages][query_tile, dim]
  int facts;                  // [stages][fact_floats]
  int weights;                // P on its way from one warp of a pair to the other
  int grad_scores;            // [2][key_block, query_tile]
  int bias;                   // [pairs][query_tile, a warp's keys], where the kernel stages it
  int bytes;
};

constexpr BackwardShared backward_shared(const BackwardTile& tile, int element_bytes, int head_dim, int value_dim,
                                         int features) {
  const int scores = tile.key_block() * tile.query_tile * element_bytes;
  const int head_bytes = head_dim * element_bytes, value_bytes = value_dim * element_bytes;
  BackwardShared at{};
  at.values = at.keys + tile.key_block() * head_bytes;
  at.queries = at.values + tile.key_block() * value_bytes;
  at.grad_outputs = at.queries + tile.stages * tile.query_tile * head_bytes;
  at.facts = at.grad_outputs + tile.stages * tile.query_tile * value_bytes;
  at.weights = at.facts + tile.stages * fact_floats(tile.query_tile) * 4;
  at.grad_scores = at.weights + scores;
  at.bias = at.grad_scores + 2 * scores;
  at.bytes = at.bias + (stages_bias(element_bytes, tile, features) ? scores : 0);
  return at;
}

/// The bias gradient's kernel.
struct BiasTile {
  int warps;  // each for 16 rows
  int keys;

  constexpr int rows() const { return 16 * warps; }
  constexpr int threads() const { return 32 * warps; }
};
constexpr BiasTile bias_tile(int element_bytes, int head_dim, int value_dim, int architecture) {
  const int dims = head_dim + value_dim;
  if (element_bytes == 4) return dims > 256 ? BiasTile{2, 16} : BiasTile{4, 32};
  return {4, dims > 320 && has_small_shared_memory(architecture) ? 32 : 64};
}
constexpr int bias_shared_bytes(const BiasTile& tile, int element_bytes, int head_dim, int value_dim) {
  return (tile.rows() + tile.keys) * (head_dim + value_dim) * element_bytes;
}

}  // namespace strobe::cuda::sm80
