// Dropout's random numbers: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). This file is the definition of Strobe's dropout mask; kernels have vector forms of the same function.
#pragma once

#include <array>
#include <cstdint>

namespace strobe {

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  std::uint32_t key0 = std::uint32_t(key), key1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t(kPhiloxMultiplier0) * counter[0];
    const std::uint64_t product1 = std::uint64_t(kPhiloxMultiplier1) * counter[2];
    counter = {std::uint32_t(product1 >> 32) ^ counter[1] ^ key0, std::uint32_t(product1),
               std::uint32_t(product0 >> 32) ^ counter[3] ^ key1, std::uint32_t(product0)};
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return counter;
}

/// The smallest 32-bit draw that keeps an element: keep <=> draw >= threshold.
inline std::uint32_t dropout_threshold(float probability) { return std::uint32_t(double(probability) * 4294967296.0); }

/// Whether the probability of query i and key j of (batch b, query head h) is kept. Four neighbouring keys share a
/// counter: word j % 4 of the block (i, j / 4, b * query_heads + h + low offset, high offset).
/// The offset is added to the 64-bit number (b * query_heads + h), so an engine that advances it by
/// batch * query_heads per call never draws a mask twice.
inline bool dropout_keeps(std::uint64_t seed, std::uint64_t offset, std::int64_t b, std::int64_t h,
                          std::int64_t query_heads, std::int64_t i, std::int64_t j, std::uint32_t threshold) {
  const std::uint64_t stream = offset + std::uint64_t(b * query_heads + h);
  const auto draws =
      philox({std::uint32_t(i), std::uint32_t(j / 4), std::uint32_t(stream), std::uint32_t(stream >> 32)}, seed);
  return draws[std::size_t(j % 4)] >= threshold;
}

}  // namespace strobe
