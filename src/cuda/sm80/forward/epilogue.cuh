// The end of a tile: O / l to memory by way of shared memory, so that rows are written 16 bytes at a time; LSE.
#pragma once

#include "cuda/sm80/forward/exchange.cuh"
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

/// O / l in registers; LSE to memory, where each of the four lanes that share rows writes one.
template <class C>
STROBE_DEVICE void finish_rows(const AttentionParams& p, const Sequence& s, int head, const TileView& view, float unit,
                               float value_factor, const Softmax<C>& softmax, Exchange<C> exchange,
                               typename C::Outputs& o) {
  const int lane = lane_index(), share = lane % 4;
  float sink = minus_infinity();
  if (p.sink.data) sink = reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride];
  float sums[C::kRowTiles][2];
#pragma unroll
  for (int n = 0; n < 2 * C::kRowTiles; ++n) sums[n / 2][n % 2] = sum_in_row(softmax.sum[n / 2][n % 2]);
  if constexpr (C::kSharing > 1) {
    float theirs[C::kRowTiles][2];
    exchange.swap_rows(sums, theirs);
#pragma unroll
    for (int n = 0; n < 2 * C::kRowTiles; ++n) sums[n / 2][n % 2] += theirs[n / 2][n % 2];
  }
  float my_origin = minus_infinity(), my_sum = 1.0f;
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // From here on in natural units: LSE = m + ln l, where a sink is one more term of l.
      float origin = fmaf(softmax.origin[r][half], unit * kLn2, score_offset<typename C::Element, C::kFeatures>(p));
      float sum = sums[r][half], factor = 1.0f;
      if (softmax.origin[r][half] == minus_infinity()) origin = minus_infinity();
      if (sink != minus_infinity()) {
        const float next = fmaxf(origin, sink);
        factor = origin == minus_infinity() ? 0.0f : ptx::ex2((origin - next) * kLog2E);
        sum = sum * factor + ptx::ex2((sink - next) * kLog2E);
        origin = next;
      }
      const float inverse = C::Element::kBytes == 2 ? ptx::rcp(sum) : 1.0f / sum;
      factor *= origin == minus_infinity() ? 0.0f : p.dropout_scale * inverse;  // an empty row is zero already
      if constexpr (C::Element::kStoredBytes == 1) factor *= value_factor;
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
        o[r][t][2 * half] *= factor;
        o[r][t][2 * half + 1] *= factor;
      }
      my_origin = share == 2 * r + half ? origin : my_origin;
      my_sum = share == 2 * r + half ? sum : my_sum;
    }
  }
  const int row = view.first_row + C::warp_row() + lane / 4 + 8 * share;
  if (p.lse.data && C::side() == 0 && share < 2 * C::kRowTiles && row < view.last_row) {
    lse_at(p, s, head, row) = my_origin == minus_infinity() ? my_origin : my_origin + logf(my_sum);
  }
}

/// Outputs of the kernel's own 16-bit type, by way of `stage`: shared memory of an OutputTile that nobody reads any
/// more.
template <class C>
STROBE_DEVICE void write_staged(const AttentionParams& p, const RowAddress& output, const TileView& view,
                                const typename C::Outputs& o, u32 stage) {
  using Tile = typename C::OutputTile;
  const int lane = lane_index();
  const LaneChunks<Tile> staged(stage + C::side() * C::kValueTiles * kChunkBytes, C::warp_row() + lane / 4, 0);
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        ptx::st_shared_4(staged.at(16 * r + 8 * half, t) + lane % 4 * 4,
                         C::Element::pack(o[r][t][2 * half], o[r][t][2 * half + 1]));
      }
    }
  }
  __syncthreads();
  const RowWindow window{view.first_row, 0, view.last_row};
  if (p.output.vector_bytes == kChunkBytes) return store_tile<Tile, C::kThreads>(stage, output, window, p.value_dim);
  constexpr int kRowPairs = Tile::kDims / 2;
#pragma unroll 1
  for (int n = int(threadIdx.x); n < Tile::kRows * kRowPairs; n += C::kThreads) {
    const int in_tile = n / kRowPairs, d = n % kRowPairs * 2;
    if (!window.holds(view.first_row + in_tile)) continue;
    const u32 pair = ptx::ld_shared_4(stage + Tile::offset(in_tile, d / Tile::kChunkElements) +
                                      d % Tile::kChunkElements * Tile::Element::kBytes);
    u16* const to = reinterpret_cast<u16*>(const_cast<char*>(output(view.first_row + in_tile))) + d;
    if (d < p.value_dim) to[0] = u16(pair);
    if (d + 1 < p.value_dim) to[1] = u16(pair >> 16);
  }
}

/// Outputs of any other type, from registers.
template <class C>
STROBE_DEVICE void write_directly(const AttentionParams& p, const RowAddress& output, const TileView& view,
                                  const typename C::Outputs& o) {
  const int lane = lane_index(), first_row = view.first_row + C::warp_row() + lane / 4;
  // Of float8, outputs are of any wider type.
  const Element type = C::Element::kStoredBytes == 1 ? p.output.type : Element::kFloat32;
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 16 * r + 8 * half;
      if (row >= view.last_row) continue;
      char* const to = const_cast<char*>(output(row));
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int d = 8 * (C::side() * C::kValueTiles + t) + 2 * (lane % 4) + e;
          if (d < p.value_dim) store_float(to, type, d, o[r][t][2 * half + e]);
        }
      }
    }
  }
}

/// Writes the tile's rows [first_row, last_row).
template <class C>
STROBE_DEVICE void write_tile(const AttentionParams& p, const Sequence& s, int head, const TileView& view, float unit,
                              float value_factor, const Softmax<C>& softmax, Exchange<C> exchange,
                              typename C::Outputs& o, u32 stage) {
  finish_rows<C>(p, s, head, view, unit, value_factor, softmax, exchange, o);
  const RowAddress output = query_rows(p, p.output, s, head);
  if constexpr (C::Element::kStoredBytes == 2) {
    if (p.output.type != Element::kFloat32) return write_staged<C>(p, output, view, o, stage);
  }
  write_directly<C>(p, output, view, o);
}

}  // namespace strobe::cuda::sm80
