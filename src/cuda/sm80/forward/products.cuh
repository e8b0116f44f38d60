// The two matrix products of the forward pass, from shared memory and registers to registers.
#pragma once

#include "cuda/sm80/forward/config.cuh"

namespace strobe::cuda::sm80 {

/// S = Q K^T for the warp's rows and keys, whose first ones are row 0 and row `first` of the tiles. float8: times
/// `factor`.
template <class C>
STROBE_DEVICE void multiply_queries_and_keys(u32 query, u32 keys, int first, float factor, typename C::Scores& s) {
  const u32 lane = u32(ptx::untraced(lane_index()));
  const LaneChunks<typename C::QueryTile> queries(query, int(lane % 16), int(lane / 16));
  const LaneChunks<typename C::KeyTile> rights(keys + first * C::KeyTile::kRowBytes, int(lane % 8 + lane / 16 * 8),
                                               int(lane / 8 % 2));
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
    for (int r = 0; r < C::kRowTiles; ++r) ptx::ldmatrix_x4(queries.at(16 * r, 2 * k), q[r]);
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; t += 2) {
      u32 key[4];
      ptx::ldmatrix_x4(rights.at(8 * t, 2 * k), key);
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

/// P as left factors of the second product.
template <class C, int kSteps>
STROBE_DEVICE void pack_weights(const typename C::Scores& p, u32 (&weights)[C::kRowTiles][kSteps][4]) {
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      left_factor<typename C::Element>(&p[r][k * C::Element::kStep / 8], weights[r][k]);
    }
  }
}

/// O += P V, where row `first` of the tile is the weights' first key.
template <class C, int kSteps>
STROBE_DEVICE void multiply_weights_and_values(const u32 (&p)[C::kRowTiles][kSteps][4], u32 values, int first,
                                               typename C::Outputs& o) {
  const u32 lane = u32(ptx::untraced(lane_index()));
  const LaneChunks<typename C::ValueTile> rights(values + first * C::ValueTile::kRowBytes, int(lane % 16),
                                                 int(lane / 16));
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int row = C::Element::kStep * k;
#pragma unroll
    for (int t = 0; t < C::kValueTiles; t += 2) {
      u32 value[4];
      if constexpr (C::Element::kBytes == 2) {
        ptx::ldmatrix_x4_trans(rights.at(row, t), value);
      } else {
        load_right_rows<typename C::ValueTile>(values, int(lane), first + row, t, value);
      }
#pragma unroll
      for (int r = 0; r < C::kRowTiles; ++r) {
        C::Element::mma(o[r][t], p[r][k], value[0], value[1]);
        C::Element::mma(o[r][t + 1], p[r][k], value[2], value[3]);
      }
    }
  }
}

/// The same from P as the softmax leaves it.
template <class C>
STROBE_DEVICE void multiply_weights_and_values(const typename C::Scores& p, u32 values, int first,
                                               typename C::Outputs& o) {
  u32 weights[C::kRowTiles][C::kKeyTiles * 8 / C::Element::kStep][4];
  pack_weights<C>(p, weights);
  multiply_weights_and_values<C>(weights, values, first, o);
}

}  // namespace strobe::cuda::sm80
