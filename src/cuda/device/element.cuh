// Element types as traits of the matrix kernels, and elements of any type as floats.
//
// A matrix product goes in steps of kStep columns of its left and rows of its right factor. A left factor of a step is
// 16 rows in four words a lane, a right factor 8 columns in two, as ldmatrix finds them in tiles of any type. Where
// both factors of a step may take their columns and rows in another order, float32 has the one in which accumulators
// lie in registers: left_factor and, for the rows of a tile, load_right_rows (tile.cuh).
#pragma once

#include "cuda/device/ptx.cuh"
#include "cuda/params.hpp"

namespace strobe::cuda {

STROBE_DEVICE float bfloat16_value(u16 bits) { return __int_as_float(int(u32(bits) << 16)); }

STROBE_DEVICE bool is_finite(float x) { return fabsf(x) <= 3.4028235e38f; }

/// How far, in powers of two, weights may grow above one before the origin of their exponentials follows the maximum.
/// In 16-bit results nobody sees it; in float32, where a row's weight is all on one key, that key's value would not
/// come out to the bit.
constexpr float kHalfOriginSlack = 8.0f;

struct Float16 {
  static constexpr int kBytes = 2, kStoredBytes = 2, kStep = 16;
  static constexpr float kOriginSlack = kHalfOriginSlack;
  static constexpr float kLargeWeights = 0x1p15f;  // the type holds twice as much
  static STROBE_DEVICE u32 pack(float low, float high) { return ptx::cvt_f16x2(low, high); }
  static STROBE_DEVICE float low(u32 pair) { return ptx::cvt_f32_f16(u16(pair)); }
  static STROBE_DEVICE float high(u32 pair) { return ptx::cvt_f32_f16(u16(pair >> 16)); }
  static STROBE_DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_m16n8k16_f16(d, a, b0, b1);
  }
};

struct BFloat16 {
  static constexpr int kBytes = 2, kStoredBytes = 2, kStep = 16;
  static constexpr float kOriginSlack = kHalfOriginSlack;
  static constexpr float kLargeWeights = 0x1p40f;  // leaves float32 sums of any length finite
  static STROBE_DEVICE u32 pack(float low, float high) { return ptx::cvt_bf16x2(low, high); }
  static STROBE_DEVICE float low(u32 pair) { return __int_as_float(int(pair << 16)); }
  static STROBE_DEVICE float high(u32 pair) { return __int_as_float(int(pair & 0xffff0000u)); }
  static STROBE_DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_m16n8k16_bf16(d, a, b0, b1);
  }
};

/// float32 on tensor cores that multiply tf32, which has 11 significant bits: each factor is the sum of two such
/// numbers, and all products but that of the two small ones are added up. (Ootomo and Yokota, arXiv 2203.03341.) The
/// tensor cores cut sums off instead of rounding them, so long sums are left to ordinary additions.
struct Float32 {
  static constexpr int kBytes = 4, kStoredBytes = 4, kStep = 8;
  static constexpr float kOriginSlack = 0.0f;
  static constexpr float kLargeWeights = 0x1p40f;

  static STROBE_DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const u32 a_high[4] = {rounded(a[0]), rounded(a[1]), rounded(a[2]), rounded(a[3])};
    const u32 a_low[4] = {rest(a[0], a_high[0]), rest(a[1], a_high[1]), rest(a[2], a_high[2]), rest(a[3], a_high[3])};
    const u32 b0_high = rounded(b0), b1_high = rounded(b1);
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    ptx::mma_m16n8k8_tf32(sum, a_low, b0_high, b1_high);
    ptx::mma_m16n8k8_tf32(sum, a_high, rest(b0, b0_high), rest(b1, b1_high));
    ptx::mma_m16n8k8_tf32(sum, a_high, b0_high, b1_high);
#pragma unroll
    for (int e = 0; e < 4; ++e) d[e] += sum[e];
  }

 private:
  /// To tf32, in float32's bits.
  static STROBE_DEVICE u32 rounded(u32 x) { return (x + 0x1000u) & 0xffffe000u; }
  static STROBE_DEVICE u32 rest(u32 x, u32 rounded) {
    const float high = __int_as_float(int(rounded));
    return is_finite(high) ? u32(__float_as_int(__int_as_float(int(x)) - high)) : 0u;
  }
};

/// float8 as memory holds it, float16 in tiles and registers, which has every value of both types.
struct Float8E5M2 : Float16 {
  static constexpr int kStoredBytes = 1;
  static STROBE_DEVICE u32 widened(u8 bits) { return u32(bits) << 8; }
};
struct Float8E4M3 : Float16 {
  static constexpr int kStoredBytes = 1;
  static STROBE_DEVICE u32 widened(u8 bits) {
    if ((bits & 0x7f) == 0x7f) return 0x7e00u;                        // NaN; there is no infinity
    const u16 scaled = u16((bits & 0x80) << 8 | (bits & 0x7f) << 7);  // by 2^-8: the exponents' biases are 7 and 15
    return pack(ptx::cvt_f32_f16(scaled) * 0x1p8f, 0.0f);
  }
};

/// The left factor of a step from accumulators of 16 x 8 elements: two of them for 16-bit types, one for float32.
template <class Element>
STROBE_DEVICE void left_factor(const float (*sums)[4], u32 (&a)[4]) {
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    if constexpr (Element::kBytes == 2) {
      a[n] = Element::pack(sums[n / 2][n % 2 * 2], sums[n / 2][n % 2 * 2 + 1]);
    } else {
      a[n] = u32(__float_as_int(sums[0][n % 2 * 2 + n / 2]));
    }
  }
}

/// A word of elements, those that are infinite or NaN replaced by zeros.
template <class Element>
STROBE_DEVICE u32 finite_elements(u32 word) {
  if constexpr (Element::kBytes == 2) {
    const float low = Element::low(word), high = Element::high(word);
    if (is_finite(low) && is_finite(high)) return word;
    return Element::pack(is_finite(low) ? low : 0.0f, is_finite(high) ? high : 0.0f);
  } else {
    return is_finite(__int_as_float(int(word))) ? word : 0u;
  }
}

/// Two neighbouring elements of a 16-bit type or float8 as a word of a tile, zero from `count` on.
template <class Element>
STROBE_DEVICE u32 load_pair(const char* from, int count) {
  if constexpr (Element::kStoredBytes == 2) {
    const u16* const elements = reinterpret_cast<const u16*>(from);
    return (count > 0 ? elements[0] : 0u) | (count > 1 ? u32(elements[1]) << 16 : 0u);
  } else {
    const u8* const elements = reinterpret_cast<const u8*>(from);
    return (count > 0 ? Element::widened(elements[0]) : 0u) | (count > 1 ? Element::widened(elements[1]) << 16 : 0u);
  }
}

/// The traits of a STROBE_TYPE option.
template <int kElement>
struct ElementOf;
template <>
struct ElementOf<int(Element::kFloat32)> {
  using Type = Float32;
};
template <>
struct ElementOf<int(Element::kFloat8E4M3)> {
  using Type = Float8E4M3;
};
template <>
struct ElementOf<int(Element::kFloat8E5M2)> {
  using Type = Float8E5M2;
};
template <>
struct ElementOf<int(Element::kFloat16)> {
  using Type = Float16;
};
template <>
struct ElementOf<int(Element::kBFloat16)> {
  using Type = BFloat16;
};

/// Element `index` of an array whose type is known when the kernel runs: float32, float16 or bfloat16.
STROBE_DEVICE float load_float(const char* data, Element type, i64 index) {
  if (type == Element::kFloat32) return reinterpret_cast<const float*>(data)[index];
  const u16 bits = reinterpret_cast<const u16*>(data)[index];
  return type == Element::kFloat16 ? ptx::cvt_f32_f16(bits) : bfloat16_value(bits);
}

/// The same of an array of the kernel's own type, float8 too.
template <class Traits>
STROBE_DEVICE float load_float_of(const char* data, Element type, i64 index) {
  if constexpr (Traits::kStoredBytes == 1) {
    return Float16::low(Traits::widened(u8(data[index])));
  } else {
    return load_float(data, type, index);
  }
}

STROBE_DEVICE int size_of(Element type) {
  return type == Element::kFloat32 ? 4 : type == Element::kFloat16 || type == Element::kBFloat16 ? 2 : 1;
}

STROBE_DEVICE void store_float(char* data, Element type, i64 index, float value) {
  if (type == Element::kFloat32) {
    reinterpret_cast<float*>(data)[index] = value;
  } else {
    const u32 pair = type == Element::kFloat16 ? Float16::pack(value, 0.0f) : BFloat16::pack(value, 0.0f);
    reinterpret_cast<u16*>(data)[index] = u16(pair);
  }
}

}  // namespace strobe::cuda
