// Matrix products over buffers of words (simd/operands.hpp): one register tile of kTileRows rows by a few vectors, and
// the loop over tiles. All five products of the backward pass are this one, with the left factor read by rows or by
// columns.
#pragma once

#include "cpu/simd/operands.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Vectors of a register tile. Three of 16 lanes, as the forward pass has them, fit neither blocks of 256 keys nor
/// heads of 64 or 128 dims (0.66 against 0.72 of the peak at d64).
constexpr int kPanelVectors = kLanes == 16 ? 2 : kTileVectors;
constexpr int kPanel = kPanelVectors * kLanes;

/// How the left factor lies in memory: element (row, k) at row * stride + k, or transposed at k * stride + row.
enum class Left { kRows, kColumns };

/// c += left * right for kTileRows rows and kVectors vectors; right's row k is at k * right_stride. Columns of the left
/// factor lie a row apart, where no hardware prefetcher follows: the next tile's are asked for meanwhile.
template <class Operand, Left kLeft, int kVectors>
STROBE_INLINE void multiply_tile(const typename Operand::Word* left, std::ptrdiff_t left_stride,
                                 const typename Operand::Word* right, std::ptrdiff_t right_stride, int depth,
                                 Floats (&c)[kTileRows][kVectors]) {
  for (int k = 0; k < depth; ++k) {
    typename Operand::Vector row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = Operand::load(right + v * kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      const auto x = Operand::broadcast(kLeft == Left::kRows ? left[r * left_stride] : left[r]);
      for (int v = 0; v < kVectors; ++v) c[r][v] = Operand::multiply_add(c[r][v], x, row[v]);
    }
    if constexpr (kLeft == Left::kColumns) __builtin_prefetch(left + kTileRows, 0, 3);
    right += right_stride;
    left += kLeft == Left::kRows ? 1 : left_stride;
  }
}

/// c = left * right for kTileRows rows and a panel's width. A call of its own, like multiply_columns: inlined into the
/// schedule, g++ 12 spills accumulators (AVX2: 0.46 of the peak against 0.62 - 0.69) or the rows' addresses (AVX-512).
template <class Operand>
STROBE_NOINLINE void multiply_panel(const typename Operand::Word* left, std::ptrdiff_t left_stride,
                                    const typename Operand::Word* panel, int depth,
                                    Floats (&c)[kTileRows][kPanelVectors]) {
  Floats sums[kTileRows][kPanelVectors];
  for (auto& row : sums) {
    for (Floats& sum : row) sum = zero();
  }
  multiply_tile<Operand, Left::kRows>(left, left_stride, panel, kPanel, depth, sums);
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) c[r][v] = sums[r][v];
  }
}

/// A whole product's operands. The result is [rows, vectors * kLanes]; rows is a multiple of kTileRows; depth counts
/// words.
template <class Operand>
struct Product {
  const typename Operand::Word* left;
  std::ptrdiff_t left_stride;
  const typename Operand::Word* right;
  std::ptrdiff_t right_stride;
  float* result;
  std::ptrdiff_t result_stride;
  int rows, vectors, depth;
};

/// One column of register tiles. What the sums are added to comes last and is asked for first, so that they need not
/// wait for it.
template <Left kLeft, bool kAdd, int kVectors, class Operand>
STROBE_NOINLINE void multiply_columns(const Product<Operand>& p, int first_vector) {
  const typename Operand::Word* right = p.right + first_vector * kLanes;
  for (int row = 0; row < p.rows; row += kTileRows) {
    float* result = p.result + row * p.result_stride + first_vector * kLanes;
    Floats c[kTileRows][kVectors];
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        c[r][v] = zero();
        if constexpr (kAdd) __builtin_prefetch(result + r * p.result_stride + v * kLanes, 0, 3);
      }
    }
    multiply_tile<Operand, kLeft>(p.left + (kLeft == Left::kRows ? row * p.left_stride : row), p.left_stride, right,
                                  p.right_stride, p.depth, c);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        float* const at = result + r * p.result_stride + v * kLanes;
        store(at, kAdd ? add(load(at), c[r][v]) : c[r][v]);
      }
    }
  }
}

/// result = left * right, or result += left * right. A single vector of accumulators would wait for each FMA's latency,
/// so four vectors are two and two where a register tile has three.
template <Left kLeft, bool kAdd, class Operand>
void multiply(const Product<Operand>& p) {
  for (int vector = 0; vector < p.vectors;) {
    const int left = p.vectors - vector;
    if (left >= kPanelVectors && (kPanelVectors < 3 || left != 4)) {
      multiply_columns<kLeft, kAdd, kPanelVectors>(p, vector);
      vector += kPanelVectors;
    } else if (left >= 2) {
      multiply_columns<kLeft, kAdd, 2>(p, vector);
      vector += 2;
    } else {
      multiply_columns<kLeft, kAdd, 1>(p, vector);
      ++vector;
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
