// Products of whole matrices on tile registers, and the transposing that their layouts take.
#pragma once

#include "cpu/backward/staging.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Rows and columns of 2 x 2 tile registers of sums.
constexpr int kTileSide = 2 * kTileEdge;

/// Words of one tile register.
constexpr int kTileWords = kTileEdge * kTileEdge;

/// result [rows, columns] and what is added to it, left * right; rows and columns are whole tiles, depth counts tiles.
struct TileMatrices {
  TileFactor left, right;
  float* result;
  std::ptrdiff_t result_stride;
  int rows, columns, depth;
};

/// The sums at (row, column). Pieces of split factors lie kTileWords apart; kAll: of two, all products count.
template <class Operand, bool kAdd, int kRows, int kColumns, bool kAll = false>
STROBE_INLINE void multiply_side(const TileMatrices& m, int row, int column) {
  using Sums = TileProduct<kRows, kColumns>;
  TileFactor left = m.left, right = m.right;
  left.at += row / kTileEdge * left.next;
  right.at += column / kTileEdge * right.next;
  float* const result = m.result + row * m.result_stride + column;
  if constexpr (kAdd) {
    Sums::load(result, m.result_stride);
  } else {
    Sums::clear();
  }
  if constexpr (Operand::kPieces > 1) {
    Sums::template add_split<Operand::kPieces, kAll>(left, kTileWords, right, kTileWords, 0, m.depth);
  } else {
    for (int n = 0; n < m.depth; ++n) Sums::add(left, right, n);
  }
  Sums::store(result, m.result_stride);
}

template <class Operand>
void multiply_in_tiles(const TileMatrices& m) {
  for (int column = 0; column < m.columns; column += kTileSide) {
    const bool wide = column + kTileSide <= m.columns;
    for (int row = 0; row < m.rows; row += kTileSide) {
      const bool high = row + kTileSide <= m.rows;
      if (high && wide) {
        multiply_side<Operand, true, 2, 2>(m, row, column);
      } else if (high) {
        multiply_side<Operand, true, 2, 1>(m, row, column);
      } else if (wide) {
        multiply_side<Operand, true, 1, 2>(m, row, column);
      } else {
        multiply_side<Operand, true, 1, 1>(m, row, column);
      }
    }
  }
}

/// pairs [rows / 2][dim] of neighbouring rows -> [dim][stride] of such pairs; rows is a multiple of 32, and rows of
/// elements lie `row_words` words apart.
void transpose_pairs(const std::uint16_t* rows, std::ptrdiff_t row_words, int count, int dim, std::uint32_t* to,
                     std::ptrdiff_t stride) {
  for (int row = 0; row < count; row += kTileSide) {
    for (int d = 0; d < dim; d += kLanes) {
      Floats block[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const std::uint16_t* const low = rows + (row + 2 * i) * 2 * row_words + d;
        block[i] = reinterpret_cast<Floats>(interleave(low, low + 2 * row_words));
      }
      transpose(block);
      for (int i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(to + (d + i) * stride + row / 2), block[i]);
    }
  }
}

/// Adds a transposed buffer [dim][from_stride] to float32 rows [first, first + count) of a head.
void add_columns(const float* from, std::ptrdiff_t from_stride, int count, int dim, const TaskRows& rows,
                 std::int64_t head, std::int64_t first) {
  float* const to = reinterpret_cast<float*>(rows.data) + head * rows.head_stride + first * rows.row_stride;
  for (int row = 0; row < count; row += kLanes) {
    for (int d = 0; d < dim; d += kLanes) {
      Floats block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = load(from + (d + i) * from_stride + row);
      transpose(block);
      const int rest = dim - d;
      for (int i = 0; i < kLanes && row + i < count; ++i) {
        float* const at = to + (row + i) * rows.row_stride + d;
        if (rest >= kLanes) {
          store(at, add(load(at), block[i]));
        } else {
          store_first(at, add(load_first(at, rest), block[i]), rest);
        }
      }
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
