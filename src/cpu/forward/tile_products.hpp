// The two products on tile registers: S^T = K Q^T for 32 keys at a time, O^T += V^T P^T for 32 dimensions at a time,
// both for the kTileWidth queries of a tile. Scores, weights and outputs lie as the vector form has them, so that
// everything between the products is the same code; of the factors, only values have a layout of their own
// (staging.hpp).
#pragma once

#include "cpu/forward/config.hpp"

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

/// Scores of keys [first, last): scores [key][kTileWidth] = keys [key][words] * query [words][kTileWidth], where
/// the keys lie as [key / 16][words / 16][16][16]. `largest` becomes the maximum of itself and each lane's scores, of
/// which those of one step are looked through while the next step's products run.
STROBE_NOINLINE void multiply_keys_in_tiles(const std::uint32_t* query, const std::uint32_t* keys, int words, int first,
                                            int last, float* scores, Floats (&largest)[kTileVectors]) {
  using Product = TileProduct<2, kQueryTiles>;
  const TileFactor right{.at = query, .stride = kTileWidth, .step = kTileEdge * kTileWidth, .next = kTileEdge};
  for (int key = first; key < last; key += kKeyRows) {
    const TileFactor left{.at = keys + key * words, .stride = kTileEdge, .step = kTileWords, .next = kTileEdge * words};
    Product::clear();
    for (int n = 0; n < words / kTileEdge; ++n) Product::add(left, right, n);
    if (key > first) find_largest(scores + (key - kKeyRows) * kTileWidth, largest);
    Product::store(scores + key * kTileWidth, kTileWidth);
  }
  find_largest(scores + (last - kKeyRows) * kTileWidth, largest);
}

template <int kRows>
STROBE_INLINE void multiply_value_rows(const std::uint32_t* values, const std::uint32_t* weights, int first, int last,
                                       float* output) {
  using Product = TileProduct<kRows, kQueryTiles>;
  const TileFactor left{
      .at = values, .stride = kTileEdge, .step = kTileWords, .next = kKeyBlock / kKeyRows * kTileWords};
  const TileFactor right{.at = weights, .stride = kTileWidth, .step = kTileEdge * kTileWidth, .next = kTileEdge};
  Product::load(output, kTileWidth);
  for (int n = first / kKeyRows; n < last / kKeyRows; ++n) Product::add(left, right, n);
  Product::store(output, kTileWidth);
}

/// At most two tiles of output dimensions: output [dims][kTileWidth] += values^T * weights over keys [first, last) of a
/// block, where values is [dims / 16][kKeyBlock / 32][16][16 pairs] and weights [pairs][kTileWidth].
STROBE_NOINLINE void multiply_values_in_tiles(const std::uint32_t* values, const std::uint32_t* weights, int dims,
                                              int first, int last, float* output) {
  if (dims > kTileEdge) {
    multiply_value_rows<2>(values, weights, first, last, output);
  } else {
    multiply_value_rows<1>(values, weights, first, last, output);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
