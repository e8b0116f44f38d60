// The busy loops of one instruction set.
#include "cpu/simd/simd.hpp"
#include "peaks/loops.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

// Independent chains: latency times issue width (Zen 5: 4 x 2 for a multiply-add, more for a dot product) with slack,
// within the 16 or 32 registers.
constexpr int kChains = STROBE_ISA_ID >= 2 ? 24 : 12;

float total(const Floats (&chains)[kChains]) {
  Floats all = zero();
  for (int c = 0; c < kChains; ++c) all = add(all, chains[c]);
  return sum(all);
}

float multiply_add(std::int64_t rounds) {
  Floats chains[kChains];
  for (int c = 0; c < kChains; ++c) chains[c] = broadcast(float(c));
  const Floats factor = broadcast(0.5f), term = broadcast(1.0f);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) chains[c] = fma(chains[c], factor, term);
  }
  return total(chains);
}

#if STROBE_ISA_ID >= 3
float dot_products(std::int64_t rounds) {
  Floats chains[kChains];
  for (int c = 0; c < kChains; ++c) chains[c] = zero();
  const Pairs ones = broadcast_pair(0x3f803f80u), halves = broadcast_pair(0x3f003f00u);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) chains[c] = dot(chains[c], ones, halves);
  }
  return total(chains);
}
#endif

#if STROBE_ISA_ID == 4
/// Four sums, which a product takes longer to make than the next one to start.
float tile_products(std::int64_t rounds) {
  configure_tiles();
  clear_tile<0>();
  clear_tile<1>();
  clear_tile<2>();
  clear_tile<3>();
  clear_tile<4>();
  clear_tile<5>();
  for (std::int64_t round = 0; round < rounds; ++round) {
    multiply_add_tile<0, 4, 5>();
    multiply_add_tile<1, 4, 5>();
    multiply_add_tile<2, 4, 5>();
    multiply_add_tile<3, 4, 5>();
  }
  float sums[kTileEdge * kTileEdge];
  store_tile<0>(sums, kTileEdge);
  release_tiles();
  return sums[0];
}
#endif

/// Four places of memory at once: measured a few per cent faster than one on Zen 5.
float sum_of(const float* from, std::int64_t count) {
  constexpr int kStreams = 4, kVectors = 2;
  const std::int64_t part = count / kStreams;
  Floats sums[kStreams * kVectors];
  for (int s = 0; s < kStreams * kVectors; ++s) sums[s] = zero();
  for (std::int64_t i = 0; i < part; i += kVectors * kLanes) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams * kVectors; ++s) {
      sums[s] = add(sums[s], load(from + (s / kVectors) * part + i + (s % kVectors) * kLanes));
    }
  }
  Floats all = zero();
  for (int s = 0; s < kStreams * kVectors; ++s) all = add(all, sums[s]);
  return sum(all);
}

}  // namespace

const PeakLoops& peak_loops() {
  static constexpr PeakLoops loops = {
    .multiply_add = multiply_add,
    .multiply_add_flops = 2.0 * kLanes * kChains,
#if STROBE_ISA_ID >= 3
    .dot = dot_products,
    .dot_flops = 4.0 * kLanes * kChains,
#else
    .dot = nullptr,
    .dot_flops = 0,
#endif
#if STROBE_ISA_ID == 4
    .tiles = tile_products,
    .tile_flops = 4 * 2.0 * kTileEdge * kTileEdge * 2 * kTileEdge,
#else
    .tiles = nullptr,
    .tile_flops = 0,
#endif
    .sum = sum_of,
  };
  return loops;
}

}  // namespace strobe::cpu::STROBE_ISA
