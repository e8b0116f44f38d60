// The end of a tile: O / l to memory by way of shared memory, so that rows are written 16 bytes at a time; LSE.
#pragma once

#include "cuda/sm80/forward/softmax.cuh"

namespace strobe::cuda::sm80 {

/// Rows past the ones in use: zero output, LSE -inf. All rows [first, last) of the sequence; the whole block takes
/// part.
STROBE_DEVICE void clear_rows(const AttentionParams& p, const Sequence& s, int head, int first, int last) {
  const RowAddress output = query_rows(p, p.output, s, head);
  for (int row = first; row < last; ++row) {
    char* const to = const_cast<char*>(output(row));
    for (int d = int(threadIdx.x); d < p.value_dim; d += int(blockDim.x)) store_float(to, p.output.type, d, 0.0f);
  }
  if (p.lse.data == nullptr) return;
  for (int row = first + int(threadIdx.x); row < last; row += int(blockDim.x)) {
    lse_at(p, s, head, row) = minus_infinity();
  }
}

/// Writes the tile's rows [first_row, last_row). `stage` is shared memory of an OutputTile that nobody reads any more.
template <class C>
STROBE_DEVICE void write_tile(const AttentionParams& p, const Sequence& s, int head, const TileView& view, float unit,
                              float value_factor, Softmax<C>& softmax, typename C::Outputs& o, u32 stage) {
  const int lane = lane_index(), warp_row = warp_index() * C::kWarpRows;
  const RowAddress output = query_rows(p, p.output, s, head);
  const bool staged = C::Element::kStoredBytes == 2 && p.output.type != Element::kFloat32;
  float sink = minus_infinity();
  if (p.sink.data) sink = reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride];
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int in_tile = warp_row + 16 * r + 8 * half + lane / 4, row = view.first_row + in_tile;
      // From here on in natural units: LSE = m + ln l, where a sink is one more term of l.
      float origin = softmax.origin[r][half] * (unit * kLn2), sum = sum_in_row(softmax.sum[r][half]), factor = 1.0f;
      if (softmax.origin[r][half] == minus_infinity()) origin = minus_infinity();
      if (sink != minus_infinity()) {
        const float next = fmaxf(origin, sink);
        factor = origin == minus_infinity() ? 0.0f : ptx::ex2((origin - next) * kLog2E);
        sum = sum * factor + ptx::ex2((sink - next) * kLog2E);
        origin = next;
      }
      const bool empty = origin == minus_infinity();
      factor *= empty ? 0.0f : p.dropout_scale / sum;
      if constexpr (C::Element::kStoredBytes == 1) factor *= value_factor;
      if (p.lse.data && row < view.last_row && lane % 4 == 0) {
        lse_at(p, s, head, row) = empty ? minus_infinity() : origin + logf(sum);
      }
      char* const to = const_cast<char*>(output(row));
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
        const float low = empty ? 0.0f : o[r][t][2 * half] * factor,
                    high = empty ? 0.0f : o[r][t][2 * half + 1] * factor;
        const int d = 8 * t + 2 * (lane % 4);
        if (staged) {
          if constexpr (C::Element::kStoredBytes == 2) {
            ptx::st_shared_4(stage + C::OutputTile::offset(in_tile, t) + lane % 4 * 4, C::Element::pack(low, high));
          }
        } else if (row < view.last_row) {
          // Of float8, outputs are of any wider type.
          const Element type = C::Element::kStoredBytes == 1 ? p.output.type : Element::kFloat32;
          if (d < p.value_dim) store_float(to, type, d, low);
          if (d + 1 < p.value_dim) store_float(to, type, d + 1, high);
        }
      }
    }
  }
  if (!staged) return;
  __syncwarp();
  // Each warp writes the rows that it staged.
  constexpr int kChunks = C::OutputTile::kRowChunks, kChunkElements = C::OutputTile::kChunkElements;
#pragma unroll 2
  for (int n = lane; n < C::kWarpRows * kChunks; n += kWarpLanes) {
    const int in_tile = warp_row + n / kChunks, chunk = n % kChunks, row = view.first_row + in_tile;
    const int left = p.value_dim - chunk * kChunkElements;
    if (row >= view.last_row || left <= 0) continue;
    const uint4 value = ptx::ld_shared_16(stage + C::OutputTile::offset(in_tile, chunk));
    char* const to = const_cast<char*>(output(row)) + chunk * kChunkBytes;
    if (p.output.vector_bytes == kChunkBytes && left >= kChunkElements) {
      *reinterpret_cast<uint4*>(to) = value;
    } else {
      const u32 from = stage + C::OutputTile::offset(in_tile, chunk);
#pragma unroll 1
      for (int e = 0; e < smaller(left, kChunkElements); ++e) {
        reinterpret_cast<u16*>(to)[e] = u16(ptx::ld_shared_4(from + e / 2 * 4) >> (e % 2 * 16));
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
