// The values of all float8 codes, worked out by the compiler from the OCP FP8 definitions.
#include "cpu/elements.hpp"

#include <limits>

namespace strobe::cpu {
namespace {

constexpr float decode(int code, int mantissa_bits, int bias, bool has_infinity) {
  const int exponent_bits = 7 - mantissa_bits;
  const int exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const bool all_ones = exponent == (1 << exponent_bits) - 1;
  const float sign = code & 0x80 ? -1.0f : 1.0f;
  if (has_infinity && all_ones && mantissa == 0) return sign * std::numeric_limits<float>::infinity();
  if (has_infinity ? all_ones : (code & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  float value = float(exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits));
  int power = (exponent == 0 ? 1 : exponent) - bias - mantissa_bits;
  for (; power > 0; --power) value *= 2.0f;
  for (; power < 0; ++power) value *= 0.5f;
  return sign * value;
}

constexpr Float8Table tabulate(int mantissa_bits, int bias, bool has_infinity) {
  Float8Table table{};
  for (int code = 0; code < 256; ++code) {
    table.values[code] = decode(code, mantissa_bits, bias, has_infinity);
  }
  return table;
}

}  // namespace

constinit const Float8Table kE4M3Table = tabulate(3, 7, false);
constinit const Float8Table kE5M2Table = tabulate(2, 15, true);

}  // namespace strobe::cpu
