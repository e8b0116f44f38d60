// AVX-512 (F, BW, DQ, VL) verbs, and the bf16 dot product where the unit has AVX512_BF16.
#pragma once

#include <immintrin.h>

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kLanes = 16;
constexpr int kTileVectors = STROBE_ISA_ID == 2 ? 3 : 2;
constexpr int kTileRows = 8;

using Floats = __m512;
using Ints = __m512i;
using Mask = __mmask16;

STROBE_INLINE Floats zero() { return _mm512_setzero_ps(); }
STROBE_INLINE Floats broadcast(float x) { return _mm512_set1_ps(x); }
STROBE_INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
STROBE_INLINE void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
/// The first `count` lanes from memory, zero elsewhere; nothing past them is touched.
STROBE_INLINE Floats load_first(const float* from, int count) {
  return _mm512_maskz_loadu_ps(_cvtu32_mask16((1u << count) - 1), from);
}
STROBE_INLINE void store_first(float* to, Floats x, int count) {
  _mm512_mask_storeu_ps(to, _cvtu32_mask16((1u << count) - 1), x);
}

STROBE_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
STROBE_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
STROBE_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
STROBE_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
/// a / b for b of ordinary size, perhaps an ulp off: a division of 16 lanes takes Intel's cores 16 cycles, this 4.
STROBE_INLINE Floats quotient(Floats a, Floats b) {
  const __m512 guess = _mm512_rcp14_ps(b);
  const __m512 inverse = _mm512_mul_ps(guess, _mm512_fnmadd_ps(b, guess, _mm512_set1_ps(2.0f)));
  const __m512 q = _mm512_mul_ps(a, inverse);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(b, q, a), inverse, q);
}
STROBE_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
STROBE_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
STROBE_INLINE Floats abs(Floats a) { return _mm512_abs_ps(a); }
/// x; a compiler that has registers to spare keeps it in one.
STROBE_INLINE Floats hold(Floats x) { return x; }

/// a * b + c
STROBE_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

STROBE_INLINE float sum(Floats a) { return _mm512_reduce_add_ps(a); }
STROBE_INLINE float largest(Floats a) { return _mm512_reduce_max_ps(a); }

STROBE_INLINE Mask less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
STROBE_INLINE Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
STROBE_INLINE Mask both(Mask a, Mask b) { return _kand_mask16(a, b); }
STROBE_INLINE Mask either(Mask a, Mask b) { return _kor_mask16(a, b); }
STROBE_INLINE Mask negate(Mask a) { return _knot_mask16(a); }
STROBE_INLINE bool any(Mask a) { return _cvtmask16_u32(a) != 0; }
STROBE_INLINE Floats select(Mask mask, Floats yes, Floats no) { return _mm512_mask_blend_ps(mask, no, yes); }

STROBE_INLINE Ints broadcast_int(std::int32_t x) { return _mm512_set1_epi32(x); }
STROBE_INLINE Ints load_ints(const std::int32_t* from) { return _mm512_loadu_si512(from); }
STROBE_INLINE void store_ints(std::int32_t* to, Ints x) { _mm512_storeu_si512(to, x); }
STROBE_INLINE Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
STROBE_INLINE Ints xor_ints(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
STROBE_INLINE Mask less_ints(Ints a, Ints b) { return _mm512_cmplt_epi32_mask(a, b); }
STROBE_INLINE Mask equal_ints(Ints a, Ints b) { return _mm512_cmpeq_epi32_mask(a, b); }
STROBE_INLINE Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
/// High and low halves of the unsigned products of 32-bit lanes.
STROBE_INLINE void multiply_wide(Ints a, Ints b, Ints& high, Ints& low) {
  const __m512i even = _mm512_mul_epu32(a, b);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
/// Lanes where a >= b, as unsigned numbers.
STROBE_INLINE Mask at_least_unsigned(Ints a, Ints b) { return _mm512_cmpge_epu32_mask(a, b); }

/// To the nearest whole number, ties to even.
STROBE_INLINE Floats round(Floats a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a * 2^n for whole n; underflows to zero.
STROBE_INLINE Floats scale_by_power(Floats a, Floats n) { return _mm512_scalef_ps(a, n); }

/// x - floor(x); 0 for infinities.
STROBE_INLINE Floats above_floor(Floats x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
/// a * 2^floor(x), 0 where x < -126. The mask keeps results from underflowing, which takes Intel's cores 175 ticks
/// of 2.6 GHz a vector (Granite Rapids; 4 without).
STROBE_INLINE Floats scale_by_floor(Floats a, Floats x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, a, x);
}

STROBE_INLINE Floats load_bytes(const std::uint8_t* from) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
STROBE_INLINE Floats load_half(const std::uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
/// float8 by way of float16, which has room for both: e5m2 is its upper byte, e4m3 differs by a bias of 8 and by NaN,
/// which is the one code with all bits set.
STROBE_INLINE Floats load_e5m2(const std::uint8_t* from) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm512_cvtph_ps(_mm256_slli_epi16(wide, 8));
}
STROBE_INLINE Floats load_e4m3(const std::uint8_t* from) {
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16(std::int16_t(0x8000)));
  const __m256i nan =
      _mm256_and_si256(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f)), _mm256_set1_epi16(0x7e00));
  const __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign), nan);
  return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}
STROBE_INLINE void store_half(std::uint16_t* to, Floats x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
STROBE_INLINE Floats load_bfloat16(const std::uint16_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/// 2 kLanes values as those of even and those of odd index, for one instruction a vector less than in their order.
STROBE_INLINE void load_bfloat16_split(const std::uint16_t* from, Floats& even, Floats& odd) {
  const __m512i pairs = _mm512_loadu_si512(from);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(std::int32_t(0xffff0000u))));
}
/// Rounds to nearest, ties to even; NaN stays NaN.
STROBE_INLINE void store_bfloat16(std::uint16_t* to, Floats x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i chosen = _mm512_mask_blend_epi32(nan, rounded, quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
}

/// Lane i is the sum of the lanes of r[i], added in the same order for every i.
STROBE_INLINE Floats sums(const Floats (&r)[kLanes]) {
  Floats t[8], u[4], v[2];
  for (int i = 0; i < 8; ++i) {
    t[i] = _mm512_add_ps(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
    u[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int i = 0; i < 2; ++i) {
    const Floats a = u[2 * i], b = u[2 * i + 1];
    v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

/// Transposes a kLanes x kLanes block held in registers.
STROBE_INLINE void transpose(Floats (&r)[kLanes]) {
  Floats t[kLanes];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
    const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  }
}

#if STROBE_ISA_ID >= 3
constexpr bool kHasDot = true;

/// 16 pairs of bf16 values, 32 bits a pair, the lower index in the low half.
using Pairs = __m512i;
STROBE_INLINE Pairs load_pairs(const std::uint32_t* from) { return _mm512_loadu_si512(from); }
STROBE_INLINE void store_pairs(std::uint32_t* to, Pairs x) { _mm512_storeu_si512(to, x); }
STROBE_INLINE Pairs broadcast_pair(std::uint32_t x) { return _mm512_set1_epi32(std::int32_t(x)); }
/// sum + a.low * b.low + a.high * b.high, in float32; subnormal bf16 values count as zero.
STROBE_INLINE Floats dot(Floats sum, Pairs a, Pairs b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
/// Pairs the bf16 values of two rows, element by element: of every eight neighbours the first and the last four.
STROBE_INLINE void interleave(Pairs a, Pairs b, Pairs& first, Pairs& last) {
  first = _mm512_unpacklo_epi16(a, b);
  last = _mm512_unpackhi_epi16(a, b);
}
/// Rounds two vectors to bf16: the elements of `low`, then those of `high`.
STROBE_INLINE Pairs round_both(Floats low, Floats high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}
/// Stores what round_both made.
STROBE_INLINE void store_both(std::uint16_t* low, std::uint16_t* high, Pairs both) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(low), _mm512_castsi512_si256(both));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(high), _mm512_extracti64x4_epi64(both, 1));
}
/// Pairs the elements of what round_both made, lane by lane.
STROBE_INLINE Pairs pair_both(Pairs both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}
STROBE_INLINE Pairs pack_pairs(Floats low, Floats high) { return pair_both(round_both(low, high)); }
/// Pairs of the bf16 values of two rows, lane by lane.
STROBE_INLINE Pairs interleave(const std::uint16_t* low, const std::uint16_t* high) {
  const __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)));
  const __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
  return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}
#else
constexpr bool kHasDot = false;
#endif

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
