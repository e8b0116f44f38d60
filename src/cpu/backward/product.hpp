// Matrix products over float32 buffers: one register tile of kTileRows rows by a few vectors, and the loop over tiles.
// All five products of the backward pass are this one, with the left factor read by rows or by columns.
#pragma once

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kPanel = kTileVectors * kLanes;

/// How the left factor lies in memory: element (row, k) at row * stride + k, or transposed at k * stride + row.
enum class Left { kRows, kColumns };

/// c += left * right for kTileRows rows and kVectors vectors; right's row k is at k * right_stride.
template <Left kLeft, int kVectors>
STROBE_INLINE void multiply_tile(const float* left, std::ptrdiff_t left_stride, const float* right,
                                 std::ptrdiff_t right_stride, int depth, Floats (&c)[kTileRows][kVectors]) {
  for (int k = 0; k < depth; ++k) {
    Floats row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load(right + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      const Floats x = broadcast(kLeft == Left::kRows ? left[r * left_stride] : left[r]);
      for (int v = 0; v < kVectors; ++v) c[r][v] = fma(x, row[v], c[r][v]);
    }
    right += right_stride;
    left += kLeft == Left::kRows ? 1 : left_stride;
  }
}

/// A whole product's operands. The result is [rows, vectors * kLanes]; rows is a multiple of kTileRows.
struct Product {
  const float* left;
  std::ptrdiff_t left_stride;
  const float* right;
  std::ptrdiff_t right_stride;
  float* result;
  std::ptrdiff_t result_stride;
  int rows, vectors, depth;
};

/// One column of register tiles.
template <Left kLeft, bool kAdd, int kVectors>
void multiply_columns(const Product& p, int first_vector) {
  const float* right = p.right + first_vector * kLanes;
  for (int row = 0; row < p.rows; row += kTileRows) {
    float* result = p.result + row * p.result_stride + first_vector * kLanes;
    Floats c[kTileRows][kVectors];
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) c[r][v] = kAdd ? load(result + r * p.result_stride + v * kLanes) : zero();
    }
    multiply_tile<kLeft>(p.left + (kLeft == Left::kRows ? row * p.left_stride : row), p.left_stride, right,
                         p.right_stride, p.depth, c);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) store(result + r * p.result_stride + v * kLanes, c[r][v]);
    }
  }
}

/// result = left * right, or result += left * right.
template <Left kLeft, bool kAdd>
void multiply(const Product& p) {
  int vector = 0;
  for (; vector + kTileVectors <= p.vectors; vector += kTileVectors) {
    multiply_columns<kLeft, kAdd, kTileVectors>(p, vector);
  }
  if constexpr (kTileVectors > 2) {
    if (p.vectors - vector == 2) {
      multiply_columns<kLeft, kAdd, 2>(p, vector);
      vector += 2;
    }
  }
  if (vector < p.vectors) multiply_columns<kLeft, kAdd, 1>(p, vector);
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
