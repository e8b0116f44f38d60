// The two matrix products, S^T = K Q^T and O^T += V^T P^T, as register tiles of kTileRows x kTileVectors vectors whose
// lanes are queries. They are calls of their own: inlined into the schedule, g++ 12 spills an accumulator of the AVX2
// tile (0.65 of the peak).
#pragma once

#include "cpu/forward/config.hpp"
#include "cpu/simd/operands.hpp"

#if STROBE_ISA_ID == 4
#include "cpu/forward/tile_products.hpp"
#endif

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Scores of kTileRows keys: scores [kTileRows][kTileWidth] = keys [kTileRows][words] * query [words][kTileWidth].
/// Only the first kVectors vectors of the tile count. `largest` becomes the maximum of itself and each lane's scores.
template <class Operand, int kVectors>
STROBE_NOINLINE void multiply_keys(const typename Operand::Word* query, const typename Operand::Word* keys,
                                   std::ptrdiff_t key_stride, int words, float* scores,
                                   Floats (&largest)[kTileVectors]) {
  Floats sums[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = zero();
  }
  for (int word = 0; word < words; ++word) {
    typename Operand::Vector q[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) q[v] = Operand::load(query + word * kTileWidth + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const auto k = Operand::broadcast(keys[r * key_stride + word]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Operand::multiply_add(sums[r][v], k, q[v]);
    }
  }
  Floats most[kVectors];  // in registers: `largest` might be stored over by the scores
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) most[v] = largest[v];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store(scores + r * kTileWidth + v * kLanes, sums[r][v]);
      most[v] = max(sums[r][v], most[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) largest[v] = most[v];
}

/// kTileRows output dimensions: output [kTileRows][kTileWidth] = output * rescale + values^T * weights, where values is
/// [words][kTileRows] and weights [words][kTileWidth]. The output comes last and is asked for first, so that the sums
/// need not wait for it.
template <class Operand, int kVectors>
STROBE_NOINLINE void multiply_values(const typename Operand::Word* values, const typename Operand::Word* weights,
                                     int words, const Floats (&rescale)[kTileVectors], float* output) {
  Floats sums[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = zero();
      __builtin_prefetch(output + r * kTileWidth + v * kLanes, 0, 3);
    }
  }
  for (int word = 0; word < words; ++word) {
    typename Operand::Vector p[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) p[v] = Operand::load(weights + word * kTileWidth + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const auto x = Operand::broadcast(values[word * kTileRows + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Operand::multiply_add(sums[r][v], x, p[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* const at = output + r * kTileWidth + v * kLanes;
      store(at, fma(load(at), rescale[v], sums[r][v]));
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
