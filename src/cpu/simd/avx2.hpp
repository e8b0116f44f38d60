// AVX2 verbs, with FMA and F16C.
#pragma once

#include <immintrin.h>

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kLanes = 8;
constexpr int kTileVectors = 3;
constexpr int kTileRows = 4;
constexpr bool kHasDot = false;

using Floats = __m256;
using Ints = __m256i;
using Mask = __m256;  // all bits of a lane set, or none

STROBE_INLINE Floats zero() { return _mm256_setzero_ps(); }
STROBE_INLINE Floats broadcast(float x) { return _mm256_set1_ps(x); }
STROBE_INLINE Floats load(const float* from) { return _mm256_loadu_ps(from); }
STROBE_INLINE void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
STROBE_INLINE __m256i first_lanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/// The first `count` lanes from memory, zero elsewhere; nothing past them is touched.
STROBE_INLINE Floats load_first(const float* from, int count) { return _mm256_maskload_ps(from, first_lanes(count)); }
STROBE_INLINE void store_first(float* to, Floats x, int count) { _mm256_maskstore_ps(to, first_lanes(count), x); }

STROBE_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
STROBE_INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
STROBE_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
STROBE_INLINE Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
/// a / b for b of ordinary size, perhaps an ulp off.
STROBE_INLINE Floats quotient(Floats a, Floats b) { return div(a, b); }
STROBE_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
STROBE_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
STROBE_INLINE Floats abs(Floats a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/// x, in a register from here on. Sixteen registers are just enough for a 4 x 3 tile, its row and one broadcast; g++ 12
/// then reads the row from memory at each use instead, and two loads a cycle hold the tile to 0.65 of the peak.
STROBE_INLINE Floats hold(Floats x) {
  __asm__("" : "+x"(x));
  return x;
}

/// a * b + c
STROBE_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }

STROBE_INLINE float sum(Floats a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
STROBE_INLINE float largest(Floats a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

STROBE_INLINE Mask less(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
STROBE_INLINE Mask equal(Floats a, Floats b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
STROBE_INLINE Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
STROBE_INLINE Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
STROBE_INLINE Mask negate(Mask a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
STROBE_INLINE bool any(Mask a) { return _mm256_movemask_ps(a) != 0; }
STROBE_INLINE Floats select(Mask mask, Floats yes, Floats no) { return _mm256_blendv_ps(no, yes, mask); }

STROBE_INLINE Ints broadcast_int(std::int32_t x) { return _mm256_set1_epi32(x); }
STROBE_INLINE Ints load_ints(const std::int32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
STROBE_INLINE void store_ints(std::int32_t* to, Ints x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
STROBE_INLINE Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
STROBE_INLINE Ints xor_ints(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
STROBE_INLINE Mask less_ints(Ints a, Ints b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }
STROBE_INLINE Mask equal_ints(Ints a, Ints b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
STROBE_INLINE Floats to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
/// High and low halves of the unsigned products of 32-bit lanes.
STROBE_INLINE void multiply_wide(Ints a, Ints b, Ints& high, Ints& low) {
  const __m256i even = _mm256_mul_epu32(a, b);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
/// Lanes where a >= b, as unsigned numbers.
STROBE_INLINE Mask at_least_unsigned(Ints a, Ints b) {
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a));
}

/// To the nearest whole number, ties to even.
STROBE_INLINE Floats round(Floats a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a * 2^n for whole n in [-252, 127] and a in [0.5, 2]; results below 2^-126 become zero.
STROBE_INLINE Floats scale_by_power(Floats a, Floats n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
  return _mm256_and_ps(scaled, _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ));
}

STROBE_INLINE Floats load_bytes(const std::uint8_t* from) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
STROBE_INLINE Floats load_half(const std::uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
/// float8 by way of float16, which has room for both: e5m2 is its upper byte, e4m3 differs by a bias of 8 and by NaN,
/// which is the one code with all bits set.
STROBE_INLINE Floats load_e5m2(const std::uint8_t* from) {
  const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return _mm256_cvtph_ps(_mm_slli_epi16(wide, 8));
}
STROBE_INLINE Floats load_e4m3(const std::uint8_t* from) {
  const __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  const __m128i magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7f));
  const __m128i sign = _mm_and_si128(wide, _mm_set1_epi16(std::int16_t(0x8000)));
  const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f)), _mm_set1_epi16(0x7e00));
  const __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), nan);
  return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
}
STROBE_INLINE void store_half(std::uint16_t* to, Floats x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
STROBE_INLINE Floats load_bfloat16(const std::uint16_t* from) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
/// 2 kLanes values as those of even and those of odd index, for one instruction a vector less than in their order.
STROBE_INLINE void load_bfloat16_split(const std::uint16_t* from, Floats& even, Floats& odd) {
  const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(std::int32_t(0xffff0000u))));
}
/// Rounds to nearest, ties to even; NaN stays NaN.
STROBE_INLINE void store_bfloat16(std::uint16_t* to, Floats x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i chosen =
      _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan));
  const __m256i high = _mm256_srli_epi32(chosen, 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}

/// Lane i is the sum of the lanes of r[i], added in the same order for every i.
STROBE_INLINE Floats sums(const Floats (&r)[kLanes]) {
  Floats t[4], u[2];
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_add_ps(_mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]));
  }
  for (int i = 0; i < 2; ++i) {
    const __m256d a = _mm256_castps_pd(t[2 * i]), b = _mm256_castps_pd(t[2 * i + 1]);
    u[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  }
  return _mm256_add_ps(_mm256_permute2f128_ps(u[0], u[1], 0x20), _mm256_permute2f128_ps(u[0], u[1], 0x31));
}

/// Transposes a kLanes x kLanes block held in registers.
STROBE_INLINE void transpose(Floats (&r)[kLanes]) {
  Floats t[kLanes];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
