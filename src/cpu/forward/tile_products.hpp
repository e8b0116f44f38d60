// The two products on tile registers: S^T = K Q^T for 32 keys at a time, O^T += V^T P^T for 32 dimensions at a time,
// both for the kTileWidth queries of a tile. Scores, weights and outputs lie as the vector form has them, so that
// everything between the products is the same code; of the factors, only values have a layout of their own
// (staging.hpp).
#pragma once

#include "cpu/forward/config.hpp"
#include "cpu/simd/operands.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kQueryTiles = kTileWidth / kTileEdge;
static_assert(kQueryTiles == 2 && kKeyRows == 2 * kTileEdge, "2 x 2 tile registers hold the scores of a step");

/// Words of one tile of keys or values, which are laid out tile by tile.
constexpr int kTileWords = kTileEdge * kTileEdge;

STROBE_INLINE void find_largest(const float* scores, Floats (&largest)[kTileVectors]) {
  Floats found[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) found[v] = largest[v];
#pragma GCC unroll 4
  for (int key = 0; key < kKeyRows; ++key) {
    for (int v = 0; v < kTileVectors; ++v) found[v] = max(load(scores + key * kTileWidth + v * kLanes), found[v]);
  }
  for (int v = 0; v < kTileVectors; ++v) largest[v] = found[v];
}

/// Adds the product of all tiles [first, last) along the sum. Of two pieces, scores need all products.
template <class Operand, class Product, bool kScores>
STROBE_INLINE void add_product(const TileFactor& left, std::ptrdiff_t left_piece, const TileFactor& right,
                               std::ptrdiff_t right_piece, int first, int last) {
  if constexpr (Operand::kPieces > 1) {
    Product::template add_split<Operand::kPieces, kScores && Operand::kPieces == 2>(left, left_piece, right,
                                                                                    right_piece, first, last);
  } else {
    for (int n = first; n < last; ++n) Product::add(left, right, n);
  }
}

/// Scores of keys [first, last): scores [key][kTileWidth] = keys [key][words] * query [words][kTileWidth], where
/// the keys lie as [key / 16][words / 16][16][16]. `largest` becomes the maximum of itself and each lane's scores, of
/// which those of one step are looked through while the next step's products run.
template <class Operand>
STROBE_NOINLINE void multiply_keys_in_tiles(const std::uint32_t* query, const std::uint32_t* keys, int words, int first,
                                            int last, float* scores, Floats (&largest)[kTileVectors]) {
  using Product = TileProduct<2, kQueryTiles>;
  const TileFactor right{.at = query, .stride = kTileWidth, .step = kTileEdge * kTileWidth, .next = kTileEdge};
  for (int key = first; key < last; key += kKeyRows) {
    const TileFactor left{.at = keys + key * words, .stride = kTileEdge, .step = kTileWords, .next = kTileEdge * words};
    Product::clear();
    add_product<Operand, Product, true>(left, key_piece(words), right, query_piece(words), 0, words / kTileEdge);
    if (key > first) find_largest(scores + (key - kKeyRows) * kTileWidth, largest);
    Product::store(scores + key * kTileWidth, kTileWidth);
  }
  find_largest(scores + (last - kKeyRows) * kTileWidth, largest);
}

/// Where values are pieces, sums start at zero, for the sake of their rounding, and outputs are rescaled as they are
/// added; else outputs are the sums, rescaled already.
template <class Operand, int kRows>
STROBE_INLINE void multiply_value_rows(const std::uint32_t* values, std::ptrdiff_t piece, const std::uint32_t* weights,
                                       int first, int last, const Floats (&rescale)[kTileVectors], float* output) {
  using Product = TileProduct<kRows, kQueryTiles>;
  const TileFactor left{
      .at = values, .stride = kTileEdge, .step = kTileWords, .next = kKeyBlock / kKeyRows * kTileWords};
  const TileFactor right{.at = weights, .stride = kTileWidth, .step = kTileEdge * kTileWidth, .next = kTileEdge};
  if constexpr (Operand::kPieces > 1) {
    Product::clear();
  } else {
    Product::load(output, kTileWidth);
  }
  add_product<Operand, Product, false>(left, piece, right, kWeightPiece, first / kKeyRows, last / kKeyRows);
  if constexpr (Operand::kPieces > 1) {
    alignas(64) float sums[kRows * kTileEdge * kTileWidth];
    Product::store(sums, kTileWidth);
    for (int row = 0; row < kRows * kTileEdge; ++row) {
      for (int v = 0; v < kTileVectors; ++v) {
        float* const at = output + row * kTileWidth + v * kLanes;
        store(at, fma(load(at), rescale[v], STROBE_ISA::load(sums + row * kTileWidth + v * kLanes)));
      }
    }
  } else {
    Product::store(output, kTileWidth);
  }
}

/// Output dimensions [d, d + 32) of value_dim, or the 16 that there are: output [value_dim][kTileWidth] += values^T *
/// weights over keys [first, last) of a block, where values is [value_dim / 16][kKeyBlock / 32][16][16 pairs] and
/// weights [pairs][kTileWidth].
template <class Operand>
STROBE_NOINLINE void multiply_values_in_tiles(const std::uint32_t* values, const std::uint32_t* weights, int d,
                                              int value_dim, int first, int last, const Floats (&rescale)[kTileVectors],
                                              float* output) {
  const std::uint32_t* const from = values + d * (kKeyBlock / 2);
  float* const to = output + d * kTileWidth;
  if (value_dim - d > kTileEdge) {
    multiply_value_rows<Operand, 2>(from, value_piece(value_dim), weights, first, last, rescale, to);
  } else {
    multiply_value_rows<Operand, 1>(from, value_piece(value_dim), weights, first, last, rescale, to);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
