// Conversions of the narrow float types, over every code there is, against their definitions in arithmetic.
#include "base/half.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "cases/random.hpp"
#include "cpu/elements.hpp"

namespace strobe {
namespace {

struct Format {
  const char* name;
  int exponent_bits, mantissa_bits;
  bool has_infinity;
  float (*decode)(std::uint32_t);
  std::uint32_t (*encode)(float);

  int bits() const { return 1 + exponent_bits + mantissa_bits; }
  std::uint32_t codes() const { return 1u << bits(); }
  std::uint32_t sign() const { return 1u << (bits() - 1); }
};

const Format kFormats[] = {
    {"float16", 5, 10, true, [](std::uint32_t bits) { return float_from_half(std::uint16_t(bits)); },
     [](float x) -> std::uint32_t { return half_from_float(x); }},
    {"bfloat16", 8, 7, true, [](std::uint32_t bits) { return float_from_bfloat16(std::uint16_t(bits)); },
     [](float x) -> std::uint32_t { return bfloat16_from_float(x); }},
    {"float8_e4m3", 4, 3, false, [](std::uint32_t bits) { return float_from_e4m3(std::uint8_t(bits)); },
     [](float x) -> std::uint32_t { return e4m3_from_float(x); }},
    {"float8_e5m2", 5, 2, true, [](std::uint32_t bits) { return float_from_e5m2(std::uint8_t(bits)); },
     [](float x) -> std::uint32_t { return e5m2_from_float(x); }},
};

double value_of(const Format& format, std::uint32_t code) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const int exponent = int(code >> format.mantissa_bits) & ((1 << format.exponent_bits) - 1);
  const int mantissa = int(code) & ((1 << format.mantissa_bits) - 1);
  const double sign = code & format.sign() ? -1.0 : 1.0;
  const int top = (1 << format.exponent_bits) - 1;
  if (format.has_infinity && exponent == top) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (!format.has_infinity && exponent == top && mantissa == (1 << format.mantissa_bits) - 1) return NAN;
  const double unit = std::ldexp(1.0, std::max(exponent, 1) - bias - format.mantissa_bits);
  return sign * unit * (exponent == 0 ? mantissa : mantissa + (1 << format.mantissa_bits));
}

class NarrowFloat : public testing::TestWithParam<Format> {};
INSTANTIATE_TEST_SUITE_P(Formats, NarrowFloat, testing::ValuesIn(kFormats),
                         [](const auto& format) { return format.param.name; });

TEST_P(NarrowFloat, DecodesEveryCode) {
  const Format& format = GetParam();
  for (std::uint32_t code = 0; code < format.codes(); ++code) {
    const double expected = value_of(format, code), decoded = format.decode(code);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(decoded)) << code;
    } else {
      EXPECT_EQ(decoded, expected) << code;
      EXPECT_EQ(std::signbit(decoded), std::signbit(expected)) << code;
    }
  }
}

TEST_P(NarrowFloat, EncodesEveryCodeToItself) {
  const Format& format = GetParam();
  for (std::uint32_t code = 0; code < format.codes(); ++code) {
    const float value = format.decode(code);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(format.decode(format.encode(value)))) << code;
    } else {
      EXPECT_EQ(format.encode(value), code);
    }
  }
}

/// Between any two neighbours: the nearer one, the even one from the middle.
TEST_P(NarrowFloat, RoundsToNearestEven) {
  const Format& format = GetParam();
  for (std::uint32_t code = 0; code + 1 < format.sign(); ++code) {
    const double low = value_of(format, code), high = value_of(format, code + 1);
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const auto middle = float((low + high) / 2);
    ASSERT_EQ(double(middle), (low + high) / 2);
    EXPECT_EQ(format.encode(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(format.encode(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(format.encode(std::nextafter(middle, HUGE_VALF)), code + 1);
    EXPECT_EQ(format.encode(-std::nextafter(middle, HUGE_VALF)), (code + 1) | format.sign());
  }
}

TEST_P(NarrowFloat, OverflowsToWhatTheTypeHas) {
  const Format& format = GetParam();
  for (const float huge : {std::numeric_limits<float>::max(), HUGE_VALF}) {
    const float encoded = format.decode(format.encode(huge));
    EXPECT_TRUE(format.has_infinity ? encoded == HUGE_VALF : std::isnan(encoded));
  }
}

TEST(Float8Tables, HoldEveryCode) {
  for (std::uint32_t code = 0; code < 256; ++code) {
    const float e4m3 = float_from_e4m3(std::uint8_t(code)), e5m2 = float_from_e5m2(std::uint8_t(code));
    const auto same = [](float a, float b) {
      return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
    };
    EXPECT_TRUE(same(cpu::kE4M3Table.values[code], e4m3)) << code;
    EXPECT_TRUE(same(cpu::kE5M2Table.values[code], e5m2)) << code;
  }
}

}  // namespace
}  // namespace strobe
