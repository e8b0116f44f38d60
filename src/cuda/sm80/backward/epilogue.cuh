// The end of a key block: dK and dV from registers to memory, by way of shared memory, so that rows are written 16
// bytes at a time.
#pragma once

#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

/// The same as write_rows, in 16-bit elements.
template <class C, class T>
STROBE_DEVICE void write_pairs(const RowsView& view, const RowAddress& rows, int block_key, int warp_key, int last,
                               int dims, float factor, const typename C::Sums& sums, u32 stage) {
  constexpr int kChunkElements = T::kChunkElements;
  const int lane = lane_index(), column = 2 * (lane % 4);
#pragma unroll
  for (int n = 0; n < 2 * C::kRowTiles; ++n) {
#pragma unroll
    for (int t = 0; t < T::kDims / 8; ++t) {
      const float(&pair)[4] = sums[n / 2][t];
      ptx::st_shared_4(stage + T::offset(warp_key + 8 * n + lane / 4, t) + column * 2,
                       C::Element::pack(pair[n % 2 * 2] * factor, pair[n % 2 * 2 + 1] * factor));
    }
  }
  __syncwarp();
  // Each warp writes the rows that it staged.
  if (view.vector_bytes == kChunkBytes) {
#pragma unroll 4
    for (int n = lane; n < C::kWarpKeys * T::kRowChunks; n += kWarpLanes) {
      const int row = warp_key + n / T::kRowChunks, chunk = n % T::kRowChunks;
      if (block_key + row >= last || chunk * kChunkElements >= dims) continue;
      char* const to = const_cast<char*>(rows(block_key + row)) + chunk * kChunkBytes;
      *reinterpret_cast<uint4*>(to) = ptx::ld_shared_16(stage + T::offset(row, chunk));
    }
  } else {
#pragma unroll 1
    for (int n = lane; n < C::kWarpKeys * T::kDims; n += kWarpLanes) {
      const int row = warp_key + n / T::kDims, d = n % T::kDims;
      if (block_key + row >= last || d >= dims) continue;
      const u32 pair = ptx::ld_shared_4(stage + T::offset(row, d / kChunkElements) + d % kChunkElements / 2 * 4);
      reinterpret_cast<u16*>(const_cast<char*>(rows(block_key + row)))[d] = u16(pair >> (d % 2 * 16));
    }
  }
}

/// Writes the warp's rows of dK or dV times `factor`: keys from block_key + warp_key on, as far as they are below
/// `last`. `stage` is shared memory of tile type T that nobody reads any more.
template <class C, class T>
STROBE_DEVICE void write_rows(const RowsView& view, const RowAddress& rows, int block_key, int warp_key, int last,
                              int dims, float factor, const typename C::Sums& sums, u32 stage) {
  const int lane = lane_index(), column = 2 * (lane % 4);
  if (C::Element::kBytes == 4 || view.type == Element::kFloat32) {
#pragma unroll
    for (int n = 0; n < 2 * C::kRowTiles; ++n) {
      const int row = block_key + warp_key + 8 * n + lane / 4, left = row < last ? dims - column : 0;
      float* const to = reinterpret_cast<float*>(const_cast<char*>(rows(row))) + column;
#pragma unroll
      for (int t = 0; t < T::kDims / 8; ++t) {
        const float(&pair)[4] = sums[n / 2][t];
        if (8 * t < left) to[8 * t] = pair[n % 2 * 2] * factor;
        if (8 * t + 1 < left) to[8 * t + 1] = pair[n % 2 * 2 + 1] * factor;
      }
    }
  } else if constexpr (C::Element::kBytes == 2) {
    write_pairs<C, T>(view, rows, block_key, warp_key, last, dims, factor, sums, stage);
  }
}

}  // namespace strobe::cuda::sm80
