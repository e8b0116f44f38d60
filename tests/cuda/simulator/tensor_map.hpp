// What the fake driver writes into a CUtensorMap, and the simulated copy engine reads from it.
#pragma once

#include <cstdint>

namespace strobe::simulator {

/// A tensor [sizes[3], sizes[2], sizes[1], sizes[0]] of 16-bit elements, of which boxes are copied. Shared memory has
/// boxes in rows of 128 bytes, under the 128-byte swizzle.
struct TensorDescription {
  static constexpr std::uint64_t kMark = 0x5354524f42453930;

  std::uint64_t mark = kMark;
  char* data = nullptr;
  std::uint64_t sizes[4] = {};    // elements
  std::uint64_t strides[3] = {};  // bytes, of all but the first
  std::uint16_t box[4] = {};      // elements
  std::uint32_t element_bytes = 0;
};
static_assert(sizeof(TensorDescription) <= 128);

}  // namespace strobe::simulator
