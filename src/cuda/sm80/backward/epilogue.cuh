// The end of a key block: dK and dV from registers to memory, by way of shared memory, so that rows are written 16
// bytes at a time.
#pragma once

#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

/// Writes the warp's rows of dK or dV times `factor`: keys from block_key + warp_key on, as far as they are below
/// `last`. `stage` is shared memory of tile type T that nobody reads any more.
template <class C, class T>
STROBE_DEVICE void write_rows(const RowsView& view, const RowAddress& rows, int block_key, int warp_key, int last,
                              int dims, float factor, const typename C::Sums& sums, u32 stage) {
  const int lane = lane_index();
  if (view.type == Element::kFloat32) {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = block_key + warp_key + 16 * r + 8 * half + lane / 4;
        if (row >= last) continue;
        char* const to = const_cast<char*>(rows(row));
#pragma unroll
        for (int t = 0; t < T::kDims / 8; ++t) {
          store_pair<typename C::Element>(view, to, 8 * t + 2 * (lane % 4), dims, sums[r][t][2 * half] * factor,
                                          sums[r][t][2 * half + 1] * factor);
        }
      }
    }
    return;
  }
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_key + 16 * r + 8 * half + lane / 4;
#pragma unroll
      for (int t = 0; t < T::kDims / 8; ++t) {
        ptx::st_shared_4(stage + T::offset(row, t) + lane % 4 * 4,
                         C::Element::pack(sums[r][t][2 * half] * factor, sums[r][t][2 * half + 1] * factor));
      }
    }
  }
  __syncwarp();
  // Each warp writes the rows that it staged.
#pragma unroll 4
  for (int n = lane; n < C::kWarpKeys * T::kRowChunks; n += kWarpLanes) {
    const int row = warp_key + n / T::kRowChunks, chunk = n % T::kRowChunks, left = dims - chunk * kChunkElements;
    if (block_key + row >= last || left <= 0) continue;
    const uint4 value = ptx::ld_shared_16(stage + T::offset(row, chunk));
    char* const to = const_cast<char*>(rows(block_key + row)) + chunk * kChunkBytes;
    if (view.vector_bytes == kChunkBytes && left >= kChunkElements) {
      *reinterpret_cast<uint4*>(to) = value;
    } else {
      const u32 words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
      for (int e = 0; e < kChunkElements; ++e) {
        if (e < left) reinterpret_cast<u16*>(to)[e] = u16(words[e / 2] >> (e % 2 * 16));
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
