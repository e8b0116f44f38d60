// Scalar conversions between float and the narrow float types.
#include "base/half.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace strobe {
namespace {

/// Decodes sign | exponent | mantissa of a small IEEE-like format without special values.
float decode(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  const std::uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const float sign = (bits >> (exponent_bits + mantissa_bits)) & 1 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(float(mantissa), 1 - bias - mantissa_bits);
  return sign * std::ldexp(float(mantissa | (1u << mantissa_bits)), exponent - bias - mantissa_bits);
}

/// Rounds |value| to a multiple of the format's spacing there and returns the code without sign; may exceed the
/// largest finite code, which the caller turns into its infinity or NaN.
std::uint32_t encode_magnitude(float magnitude, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  if (magnitude == 0.0f) return 0;
  int exponent = 0;
  std::frexp(magnitude, &exponent);                                   // magnitude = f * 2^exponent, f in [0.5, 1)
  const int unit = std::max(exponent - 1, 1 - bias) - mantissa_bits;  // weight of the last mantissa bit
  const float steps = std::nearbyint(std::ldexp(magnitude, -unit));   // exact, then ties to even
  const std::uint32_t biased = std::uint32_t(unit + mantissa_bits + bias);
  // For a normal number `steps` includes the hidden bit, which adds one to the exponent field by itself; rounding up
  // to the next power of two carries into the exponent the same way.
  return (biased - 1) * (1u << mantissa_bits) + std::uint32_t(steps);
}

std::uint32_t sign_bit(float value) { return std::bit_cast<std::uint32_t>(value) >> 31; }

}  // namespace

float float_from_half(std::uint16_t bits) {
  if ((bits & 0x7c00) == 0x7c00) {
    const std::uint32_t wide = (bits & 0x8000u) << 16 | 0x7f800000u | (bits & 0x3ffu) << 13;
    return std::bit_cast<float>(wide);
  }
  return decode(bits, 5, 10);
}

float float_from_bfloat16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t(bits) << 16); }

float float_from_e4m3(std::uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) return std::bit_cast<float>(0x7fc00000u);
  return decode(bits, 4, 3);
}

float float_from_e5m2(std::uint8_t bits) { return float_from_half(std::uint16_t(bits << 8)); }

std::uint16_t half_from_float(float value) {
  const std::uint16_t sign = std::uint16_t(sign_bit(value) << 15);
  if (std::isnan(value)) return sign | 0x7e00;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  return sign | std::uint16_t(encode_magnitude(magnitude, 5, 10));
}

std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return std::uint16_t(bits >> 16 | 0x40);
  return std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::uint8_t e4m3_from_float(float value) {
  const std::uint8_t sign = std::uint8_t(sign_bit(value) << 7);
  const float magnitude = std::fabs(value);
  if (!(magnitude < 464.0f)) return magnitude == 464.0f ? sign | 0x7e : sign | 0x7f;
  return sign | std::uint8_t(encode_magnitude(magnitude, 4, 3));
}

std::uint8_t e5m2_from_float(float value) {
  const std::uint8_t sign = std::uint8_t(sign_bit(value) << 7);
  if (std::isnan(value)) return sign | 0x7e;
  const float magnitude = std::fabs(value);
  if (magnitude >= 61440.0f) return sign | 0x7c;
  return sign | std::uint8_t(encode_magnitude(magnitude, 5, 2));
}

float load_element(const void* data, DataType type, std::int64_t index) {
  switch (type) {
    case DataType::kFloat32:
      return static_cast<const float*>(data)[index];
    case DataType::kFloat16:
      return float_from_half(static_cast<const std::uint16_t*>(data)[index]);
    case DataType::kBFloat16:
      return float_from_bfloat16(static_cast<const std::uint16_t*>(data)[index]);
    case DataType::kFloat8E4M3:
      return float_from_e4m3(static_cast<const std::uint8_t*>(data)[index]);
    case DataType::kFloat8E5M2:
      return float_from_e5m2(static_cast<const std::uint8_t*>(data)[index]);
    case DataType::kInt32:
      return float(static_cast<const std::int32_t*>(data)[index]);
    case DataType::kBool:
      return static_cast<const std::uint8_t*>(data)[index] != 0 ? 1.0f : 0.0f;
  }
  return 0.0f;
}

void store_element(void* data, DataType type, std::int64_t index, float value) {
  switch (type) {
    case DataType::kFloat32:
      static_cast<float*>(data)[index] = value;
      return;
    case DataType::kFloat16:
      static_cast<std::uint16_t*>(data)[index] = half_from_float(value);
      return;
    case DataType::kBFloat16:
      static_cast<std::uint16_t*>(data)[index] = bfloat16_from_float(value);
      return;
    case DataType::kFloat8E4M3:
      static_cast<std::uint8_t*>(data)[index] = e4m3_from_float(value);
      return;
    case DataType::kFloat8E5M2:
      static_cast<std::uint8_t*>(data)[index] = e5m2_from_float(value);
      return;
    case DataType::kInt32:
      static_cast<std::int32_t*>(data)[index] = std::int32_t(value);
      return;
    case DataType::kBool:
      static_cast<std::uint8_t*>(data)[index] = value != 0.0f;
      return;
  }
}

}  // namespace strobe
