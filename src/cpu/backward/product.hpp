// Matrix products over buffers of words (simd/operands.hpp): one register tile of kTileRows rows by a few vectors, and
// the loop over tiles. All five products of the backward pass are this one, with the left factor read by rows or by
// columns.
#pragma once

#include "cpu/simd/operands.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// A register tile: rows of the left factor and vectors of the right one. On AVX-512 6 x 4 loads 10 vectors for 24
/// multiply-adds (8 x 2: 10 for 16) and divides blocks of 64 keys and heads of 64 dims.
constexpr int kRegisterRows = STROBE_ISA_ID == 2 ? 6 : kTileRows;
constexpr int kPanelVectors = STROBE_ISA_ID == 2 ? 4 : kTileVectors;
constexpr int kPanel = kPanelVectors * kLanes;

/// Bytes of the right factor that a column of register tiles passes over time and again: they stay in the first-level
/// cache beside the left factor and the result.
constexpr int kRightBytes = 24 << 10;

/// How the left factor lies in memory: element (row, k) at row * stride + k, or transposed at k * stride + row.
enum class Left { kRows, kColumns };

/// c += left * right for kRows rows and kVectors vectors; right's row k is at k * right_stride. Columns of the left
/// factor lie a row apart, where no hardware prefetcher follows: the next tile's are asked for meanwhile.
template <class Operand, Left kLeft, int kRows, int kVectors>
STROBE_INLINE void multiply_tile(const typename Operand::Word* left, std::ptrdiff_t left_stride,
                                 const typename Operand::Word* right, std::ptrdiff_t right_stride, int depth,
                                 Floats (&c)[kRows][kVectors]) {
  for (int k = 0; k < depth; ++k) {
    typename Operand::Vector row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = Operand::load(right + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto x = Operand::broadcast(kLeft == Left::kRows ? left[r * left_stride] : left[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) c[r][v] = Operand::multiply_add(c[r][v], x, row[v]);
    }
    if constexpr (kLeft == Left::kColumns) __builtin_prefetch(left + kRows, 0, 3);
    right += right_stride;
    left += kLeft == Left::kRows ? 1 : left_stride;
  }
}

/// c = left * right for a register tile. A call of its own, like multiply_columns: inlined into the schedule, g++ 12
/// spills accumulators (AVX2: 0.46 of the peak against 0.62 - 0.69) or the rows' addresses (AVX-512).
template <class Operand>
STROBE_NOINLINE void multiply_panel(const typename Operand::Word* left, std::ptrdiff_t left_stride,
                                    const typename Operand::Word* panel, int depth,
                                    Floats (&c)[kRegisterRows][kPanelVectors]) {
  Floats sums[kRegisterRows][kPanelVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRegisterRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) sums[r][v] = zero();
  }
  multiply_tile<Operand, Left::kRows>(left, left_stride, panel, kPanel, depth, sums);
#pragma GCC unroll 8
  for (int r = 0; r < kRegisterRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) c[r][v] = sums[r][v];
  }
}

/// result += left * right. The result is [rows, vectors * kLanes]; rows is even, and a multiple of kTileRows where that
/// is a register tile's rows; depth counts words.
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

/// Register tiles of kRows x kVectors one below the other, as many as there is room for. What the next one's sums begin
/// with is asked for meanwhile.
template <Left kLeft, int kRows, int kVectors, class Operand>
STROBE_NOINLINE int multiply_columns(const Product<Operand>& p, int row) {
  for (; row + kRows <= p.rows; row += kRows) {
    float* const result = p.result + row * p.result_stride;
    Floats c[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        float* const at = result + r * p.result_stride + v * kLanes;
        c[r][v] = load(at);
        __builtin_prefetch(at + kRows * p.result_stride, 0, 3);
      }
    }
    multiply_tile<Operand, kLeft>(p.left + (kLeft == Left::kRows ? row * p.left_stride : row), p.left_stride, p.right,
                                  p.right_stride, p.depth, c);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        store(result + r * p.result_stride + v * kLanes, c[r][v]);
      }
    }
  }
  return row;
}

/// kVectors vectors of the result, a piece of the depth at a time.
template <Left kLeft, int kVectors, class Operand>
void multiply_vectors(Product<Operand> p) {
  constexpr int kDepth = kRightBytes / (kVectors * kLanes * int(sizeof(float)));
  for (int rest = p.depth; rest > 0; rest -= kDepth) {
    p.depth = rest < kDepth ? rest : kDepth;
    const int row = multiply_columns<kLeft, kRegisterRows, kVectors>(p, 0);
    if constexpr (kRegisterRows == 6) {
      if (row < p.rows) multiply_columns<kLeft, 2, kVectors>(p, multiply_columns<kLeft, 4, kVectors>(p, row));
    }
    p.left += kLeft == Left::kRows ? kDepth : kDepth * p.left_stride;
    p.right += kDepth * p.right_stride;
  }
}

/// result += left * right, as few vectors at a time as evenly as possible: a single vector of accumulators would wait
/// for each FMA's latency.
template <Left kLeft, class Operand>
void multiply(Product<Operand> p) {
  for (int passes = (p.vectors + kPanelVectors - 1) / kPanelVectors; passes > 0; --passes) {
    const int vectors = (p.vectors + passes - 1) / passes;
    if constexpr (kPanelVectors >= 4) {
      if (vectors == 4) multiply_vectors<kLeft, 4>(p);
    }
    if constexpr (kPanelVectors >= 3) {
      if (vectors == 3) multiply_vectors<kLeft, 3>(p);
    }
    if (vectors == 2) multiply_vectors<kLeft, 2>(p);
    if (vectors == 1) multiply_vectors<kLeft, 1>(p);
    p.vectors -= vectors;
    p.right += vectors * kLanes;
    p.result += vectors * kLanes;
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
