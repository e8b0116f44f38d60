// The three forms of matrix product of the backward pass, from shared memory and registers to registers. Tiles are
// row-major and swizzled (device/tile.cuh).
#pragma once

#include "cuda/sm80/backward/config.cuh"

namespace strobe::cuda::sm80 {

template <int kRowTiles, int kTiles>
STROBE_DEVICE void clear(float (&sums)[kRowTiles][kTiles][4]) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[r][t][e] = 0.0f;
    }
  }
}

/// sums = A B^T for the rows of A from `row` on and all rows of B: S^T = K Q^T, dP^T = V dO^T.
template <class Element, class A, class B, int kRowTiles, int kTiles>
STROBE_DEVICE void multiply_rows(int lane, u32 a, int row, u32 b, float (&sums)[kRowTiles][kTiles][4]) {
  static_assert(A::kDims == B::kDims && kTiles * 8 == B::kRows);
  const int a_row = row + lane % 16, a_chunk = lane / 16;
  const int b_row = lane % 8 + lane / 16 * 8, b_chunk = lane / 8 % 2;
  clear(sums);
  constexpr int kSteps = A::kDims / Element::kStep, kUnrolled = Element::kBytes == 4 ? 4 : kSteps;
#pragma unroll kUnrolled
  for (int k = 0; k < kSteps; ++k) {
    u32 left[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) ptx::ldmatrix_x4(a + A::offset(a_row + 16 * r, 2 * k + a_chunk), left[r]);
#pragma unroll
    for (int t = 0; t < kTiles; t += 2) {
      u32 right[4];
      ptx::ldmatrix_x4(b + B::offset(8 * t + b_row, 2 * k + b_chunk), right);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        Element::mma(sums[r][t], left[r], right[0], right[1]);
        Element::mma(sums[r][t + 1], left[r], right[2], right[3]);
      }
    }
  }
}

/// sums += A B for step k of B's rows, where A lies in registers: dV += P^T dO, dK += dS^T Q.
template <class Element, class B, int kRowTiles, int kTiles>
STROBE_DEVICE void multiply_step(int lane, const u32 (&a)[kRowTiles][4], u32 b, int k,
                                 float (&sums)[kRowTiles][kTiles][4]) {
  static_assert(B::kDims / 8 <= kTiles);
#pragma unroll
  for (int t = 0; t < B::kDims / 8; t += 2) {
    u32 right[4];
    load_right_rows<B>(b, lane, Element::kStep * k, t, right);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      Element::mma(sums[r][t], a[r], right[0], right[1]);
      Element::mma(sums[r][t + 1], a[r], right[2], right[3]);
    }
  }
}

/// sums = A^T B for the columns of A from `a_column` and those of B from `b_column` on: dQ = dS K, from dS^T.
template <class Element, class A, class B, int kRowTiles, int kTiles>
STROBE_DEVICE void multiply_columns(int lane, u32 a, int a_column, u32 b, int b_column,
                                    float (&sums)[kRowTiles][kTiles][4]) {
  static_assert(A::kRows == B::kRows);
  constexpr int kStep = Element::kStep;
  clear(sums);
#pragma unroll
  for (int k = 0; k < A::kRows / kStep; ++k) {
    u32 left[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) load_left_columns<A>(a, lane, kStep * k, a_column / 8 + 2 * r, left[r]);
#pragma unroll
    for (int t = 0; t < kTiles; t += 2) {
      u32 right[4];
      load_right_rows<B>(b, lane, kStep * k, b_column / 8 + t, right);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        Element::mma(sums[r][t], left[r], right[0], right[1]);
        Element::mma(sums[r][t + 1], left[r], right[2], right[3]);
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
