// Storage types of tensor elements as distinct C++ types, so that kernels can be templates over them. Plain data only:
// instruction-set units include this.
#pragma once

#include <cstdint>

namespace strobe::cpu {

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};
struct E4M3 {
  std::uint8_t bits;
};
struct E5M2 {
  std::uint8_t bits;
};
/// A byte of a mask: as a float, 0 to 255.
struct Byte {
  std::uint8_t bits;
};

struct Float8Table {
  float values[256];
};

/// The values of all float8 codes.
extern const Float8Table kE4M3Table, kE5M2Table;

}  // namespace strobe::cpu
