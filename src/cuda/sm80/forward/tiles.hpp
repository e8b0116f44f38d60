// The tuning table of the forward kernel: tile sizes for head dimensions and architectures. Plain constants, read by
// the kernel when it is compiled and by the host when it plans. What was measured to choose them is in README.md.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

struct ForwardTile {
  int warps;      // each has 16 * row_tiles queries
  int sharing;    // 2: warps of a pair have the same queries, and share the keys for S and the dimensions for O
  int row_tiles;  // the more, the more often a key fragment is used once it is in registers
  int key_block;
  int blocks;  // thread blocks that a multiprocessor's registers must hold together

  constexpr int query_tile() const { return 16 * warps * row_tiles / sharing; }
  constexpr int threads() const { return 32 * warps; }
};

/// Head dimensions that kernels are built for; others are padded to the next. 0 where there is none.
constexpr int built_dim(int dim) {
  constexpr int kBuilt[] = {32, 64, 96, 128, 192, 256};
  for (int built : kBuilt) {
    if (dim <= built) return built;
  }
  return 0;
}

/// The dimensions of the kernel that serves a problem's: equal ones, but for 192 with 128.
struct BuiltDims {
  int head, value;
};
constexpr BuiltDims built_dims(int head_dim, int value_dim) {
  const int head = built_dim(head_dim), value = built_dim(value_dim), larger = head > value ? head : value;
  return head == 192 && value <= 128 ? BuiltDims{192, 128} : BuiltDims{larger, larger};
}

/// Bytes of an element in shared memory, where float8 lies as float16, from its bytes in global memory.
constexpr int tile_bytes(int stored_bytes) { return stored_bytes > 2 ? stored_bytes : 2; }

/// Shared memory that a block may have: 99 KiB on the consumer cards' architectures, 163 KiB on sm_80, 227 KiB since.
constexpr bool has_small_shared_memory(int architecture) {
  return architecture == 86 || architecture == 89 || architecture == 120;
}

/// For float32, whose kernels fit where shared memory is small.
constexpr ForwardTile wide_forward_tile(int dim) {
  if (dim <= 64) return {.warps = 4, .sharing = 1, .row_tiles = 2, .key_block = 32, .blocks = 2};
  if (dim <= 128) return {.warps = 4, .sharing = 1, .row_tiles = 1, .key_block = 32, .blocks = 2};
  return {.warps = 4, .sharing = 1, .row_tiles = 1, .key_block = 16, .blocks = 1};
}

constexpr ForwardTile forward_tile(int element_bytes, int head_dim, int value_dim, int architecture) {
  const int dim = head_dim > value_dim ? head_dim : value_dim;
  const bool small = has_small_shared_memory(architecture);
  if (element_bytes == 4) return wide_forward_tile(dim);
  if (dim <= 64) return {.warps = 4, .sharing = 1, .row_tiles = 2, .key_block = 128, .blocks = 2};
  if (dim <= 128) return {.warps = 4, .sharing = 1, .row_tiles = 2, .key_block = 64, .blocks = 2};
  // sm_80 has room for 128 KiB, not for two blocks of 96.
  const int warps = architecture == 80 ? 8 : 4, blocks = small || architecture == 80 ? 1 : 2;
  const int sharing = dim > 192 && !small ? 2 : 1;
  return {.warps = warps, .sharing = sharing, .row_tiles = sharing, .key_block = 64, .blocks = blocks};
}

/// What a warp tells the one that it shares rows with: weights, a number for each row, a flag.
constexpr int exchange_bytes(const ForwardTile& tile) {
  const int rows = 16 * tile.row_tiles;
  return tile.sharing == 1 ? 0 : rows * tile.key_block / tile.sharing * 2 + rows * 4 + 16;
}

/// Whether a kernel has its bias brought to shared memory in the background: where it is the only option, for 16-bit
/// types, and not at the largest dimensions, where one block a multiprocessor would be left, or none.
constexpr bool stages_bias(int stored_bytes, const ForwardTile& tile, int features) {
  return features == kBias && stored_bytes == 2 && tile.sharing == 1 && tile.row_tiles > 1;
}

constexpr int forward_shared_bytes(int stored_bytes, int head_dim, int value_dim, int features, int architecture) {
  const int element_bytes = tile_bytes(stored_bytes);
  const ForwardTile tile = forward_tile(element_bytes, head_dim, value_dim, architecture);
  const int dim = head_dim > value_dim ? head_dim : value_dim;  // outputs take the queries' place
  const int bias_bytes = stages_bias(stored_bytes, tile, features) ? tile.query_tile() * tile.key_block * 2 : 0;
  return (tile.query_tile() * dim + tile.key_block * (head_dim + value_dim)) * element_bytes +
         tile.warps * exchange_bytes(tile) + bias_bytes;
}

}  // namespace strobe::cuda::sm80
