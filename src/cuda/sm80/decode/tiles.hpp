// The tuning table of the decode kernel. Plain constants, read by the kernel when it is compiled and by the host when
// it plans.
#pragma once

#include "cuda/sm80/forward/tiles.hpp"

namespace strobe::cuda::sm80 {

constexpr int kDecodeRows = 16;  // query rows of a block: all heads that share a KV head
constexpr int kDecodeStep = 16;  // keys that a warp meets at a time

/// Up to so many splits, the last block of a row group joins them; more are worth a launch with many blocks.
constexpr int kMostJoinedSplits = 128;

struct DecodeTile {
  int warps;
  int stages;  // steps of a warp in shared memory, on their way but for the one that it works on

  constexpr int threads() const { return 32 * warps; }
};

/// Bytes on their way are what keeps memory busy: about 96 KiB a multiprocessor.
constexpr DecodeTile decode_tile(int element_bytes, int head_dim, int value_dim, int architecture) {
  const int row_bytes = (head_dim > value_dim ? head_dim : value_dim) * element_bytes;
  const bool small = has_small_shared_memory(architecture);
  if (row_bytes <= 128) return {.warps = 4, .stages = 6};
  if (row_bytes <= 256) return {.warps = 4, .stages = small ? 2 : 3};
  if (row_bytes <= 512) return {.warps = small ? 2 : 4, .stages = 2};
  return {.warps = small ? 1 : 2, .stages = 2};
}

/// Queries, then the stages of every warp; at the end the warps' results lie there instead.
constexpr int decode_shared_bytes(int element_bytes, int head_dim, int value_dim, int architecture) {
  const DecodeTile tile = decode_tile(element_bytes, head_dim, value_dim, architecture);
  const int stages = tile.warps * tile.stages * kDecodeStep * (head_dim + value_dim) * element_bytes;
  const int results = tile.warps * kDecodeRows * (value_dim + 8) * 4;
  return kDecodeRows * head_dim * element_bytes + (stages > results ? stages : results);
}

}  // namespace strobe::cuda::sm80
