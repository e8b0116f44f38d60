// The two matrix products of the forward pass, from shared memory and registers to registers.
#pragma once

#include "cuda/sm80/forward/config.cuh"

namespace strobe::cuda::sm80 {

/// S = Q K^T for the warp's rows and the part's keys, whose first is row `first` of the tile. float8: times `factor`.
template <class C>
STROBE_DEVICE void multiply_queries_and_keys(u32 query, u32 keys, int first, float factor, typename C::Scores& s) {
  const int lane = lane_index(), warp_row = warp_index() * C::kWarpRows;
  const int query_row = lane % 16, query_chunk = lane / 16;
  const int key_row = lane % 8 + lane / 16 * 8, key_chunk = lane / 8 % 2;
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[r][t][e] = 0.0f;
    }
  }
  constexpr int kSteps = C::kHeadDim / C::Element::kStep, kUnrolled = C::Element::kBytes == 4 ? 4 : kSteps;
#pragma unroll kUnrolled
  for (int k = 0; k < kSteps; ++k) {
    u32 q[C::kRowTiles][4];
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      ptx::ldmatrix_x4(query + C::QueryTile::offset(warp_row + 16 * r + query_row, 2 * k + query_chunk), q[r]);
    }
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; t += 2) {
      u32 key[4];
      ptx::ldmatrix_x4(keys + C::KeyTile::offset(first + 8 * t + key_row, 2 * k + key_chunk), key);
#pragma unroll
      for (int r = 0; r < C::kRowTiles; ++r) {
        C::Element::mma(s[r][t], q[r], key[0], key[1]);
        C::Element::mma(s[r][t + 1], q[r], key[2], key[3]);
      }
    }
  }
  if constexpr (C::Element::kStoredBytes == 1) {
#pragma unroll
    for (int n = 0; n < C::kRowTiles * C::kKeyTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[n / C::kKeyTiles][n % C::kKeyTiles][e] *= factor;
    }
  }
}

/// O += P V, where P lies in registers as the scores did.
template <class C>
STROBE_DEVICE void multiply_weights_and_values(const typename C::Scores& p, u32 values, int first,
                                               typename C::Outputs& o) {
  constexpr int kStep = C::Element::kStep;
  const int lane = lane_index();
#pragma unroll
  for (int k = 0; k < C::kPartKeys / kStep; ++k) {
    u32 weights[C::kRowTiles][4];
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) left_factor<typename C::Element>(&p[r][k * kStep / 8], weights[r]);
#pragma unroll
    for (int t = 0; t < C::kValueTiles; t += 2) {
      u32 value[4];
      load_right_rows<typename C::ValueTile>(values, lane, first + kStep * k, t, value);
#pragma unroll
      for (int r = 0; r < C::kRowTiles; ++r) {
        C::Element::mma(o[r][t], weights[r], value[0], value[1]);
        C::Element::mma(o[r][t + 1], weights[r], value[2], value[3]);
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
