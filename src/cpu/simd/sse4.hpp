// SSE4.2 verbs: the least that an x86-64 machine of the last fifteen years has.
#pragma once

#include <immintrin.h>

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kLanes = 4;
constexpr int kTileVectors = 2;
constexpr int kTileRows = 4;
constexpr bool kHasDot = false;

using Floats = __m128;
using Ints = __m128i;
using Mask = __m128;  // all bits of a lane set, or none

STROBE_INLINE Floats zero() { return _mm_setzero_ps(); }
STROBE_INLINE Floats broadcast(float x) { return _mm_set1_ps(x); }
STROBE_INLINE Floats load(const float* from) { return _mm_loadu_ps(from); }
STROBE_INLINE void store(float* to, Floats x) { _mm_storeu_ps(to, x); }
/// The first `count` lanes from memory, zero elsewhere; nothing past them is touched.
STROBE_INLINE Floats load_first(const float* from, int count) {
  float lanes[kLanes] = {};
  for (int lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load(lanes);
}
STROBE_INLINE void store_first(float* to, Floats x, int count) {
  float lanes[kLanes];
  store(lanes, x);
  for (int lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

STROBE_INLINE Floats add(Floats a, Floats b) { return _mm_add_ps(a, b); }
STROBE_INLINE Floats sub(Floats a, Floats b) { return _mm_sub_ps(a, b); }
STROBE_INLINE Floats mul(Floats a, Floats b) { return _mm_mul_ps(a, b); }
STROBE_INLINE Floats div(Floats a, Floats b) { return _mm_div_ps(a, b); }
/// a / b for b of ordinary size, perhaps an ulp off.
STROBE_INLINE Floats quotient(Floats a, Floats b) { return div(a, b); }
STROBE_INLINE Floats max(Floats a, Floats b) { return _mm_max_ps(a, b); }
STROBE_INLINE Floats min(Floats a, Floats b) { return _mm_min_ps(a, b); }
STROBE_INLINE Floats abs(Floats a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
/// x; a compiler that has registers to spare keeps it in one.
STROBE_INLINE Floats hold(Floats x) { return x; }

/// a * b + c, rounded twice
STROBE_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }

STROBE_INLINE float sum(Floats a) {
  const __m128 x = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
STROBE_INLINE float largest(Floats a) {
  const __m128 x = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

STROBE_INLINE Mask less(Floats a, Floats b) { return _mm_cmplt_ps(a, b); }
STROBE_INLINE Mask equal(Floats a, Floats b) { return _mm_cmpeq_ps(a, b); }
STROBE_INLINE Mask both(Mask a, Mask b) { return _mm_and_ps(a, b); }
STROBE_INLINE Mask either(Mask a, Mask b) { return _mm_or_ps(a, b); }
STROBE_INLINE Mask negate(Mask a) { return _mm_xor_ps(a, _mm_castsi128_ps(_mm_set1_epi32(-1))); }
STROBE_INLINE bool any(Mask a) { return _mm_movemask_ps(a) != 0; }
STROBE_INLINE Floats select(Mask mask, Floats yes, Floats no) { return _mm_blendv_ps(no, yes, mask); }

STROBE_INLINE Ints broadcast_int(std::int32_t x) { return _mm_set1_epi32(x); }
STROBE_INLINE Ints load_ints(const std::int32_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
STROBE_INLINE void store_ints(std::int32_t* to, Ints x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x); }
STROBE_INLINE Ints add_ints(Ints a, Ints b) { return _mm_add_epi32(a, b); }
STROBE_INLINE Ints xor_ints(Ints a, Ints b) { return _mm_xor_si128(a, b); }
STROBE_INLINE Mask less_ints(Ints a, Ints b) { return _mm_castsi128_ps(_mm_cmplt_epi32(a, b)); }
STROBE_INLINE Mask equal_ints(Ints a, Ints b) { return _mm_castsi128_ps(_mm_cmpeq_epi32(a, b)); }
STROBE_INLINE Floats to_floats(Ints a) { return _mm_cvtepi32_ps(a); }
/// High and low halves of the unsigned products of 32-bit lanes.
STROBE_INLINE void multiply_wide(Ints a, Ints b, Ints& high, Ints& low) {
  const __m128i even = _mm_mul_epu32(a, b);
  const __m128i odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
  high = _mm_blend_epi16(_mm_srli_epi64(even, 32), odd, 0xcc);
  low = _mm_blend_epi16(even, _mm_slli_epi64(odd, 32), 0xcc);
}
/// Lanes where a >= b, as unsigned numbers.
STROBE_INLINE Mask at_least_unsigned(Ints a, Ints b) {
  return _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_max_epu32(a, b), a));
}

/// To the nearest whole number, ties to even.
STROBE_INLINE Floats round(Floats a) { return _mm_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a * 2^n for whole n in [-252, 127] and a in [0.5, 2]; results below 2^-126 become zero.
STROBE_INLINE Floats scale_by_power(Floats a, Floats n) {
  const __m128i exponent = _mm_slli_epi32(_mm_cvtps_epi32(n), 23);
  const __m128 scaled = _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(a), exponent));
  return _mm_and_ps(scaled, _mm_cmpnlt_ps(n, _mm_set1_ps(-126.0f)));
}

STROBE_INLINE Floats load_bfloat16(const std::uint16_t* from) {
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return _mm_castsi128_ps(_mm_slli_epi32(wide, 16));
}
/// 2 kLanes values as those of even and those of odd index, for one instruction a vector less than in their order.
STROBE_INLINE void load_bfloat16_split(const std::uint16_t* from, Floats& even, Floats& odd) {
  const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  even = _mm_castsi128_ps(_mm_slli_epi32(pairs, 16));
  odd = _mm_castsi128_ps(_mm_and_si128(pairs, _mm_set1_epi32(std::int32_t(0xffff0000u))));
}
/// Rounds to nearest, ties to even; NaN stays NaN.
STROBE_INLINE void store_bfloat16(std::uint16_t* to, Floats x) {
  const __m128i bits = _mm_castps_si128(x);
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  const __m128i rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
  const __m128 nan = _mm_cmpunord_ps(x, x);
  const __m128i quiet = _mm_or_si128(bits, _mm_set1_epi32(0x400000));
  const __m128i chosen = _mm_castps_si128(_mm_blendv_ps(_mm_castsi128_ps(rounded), _mm_castsi128_ps(quiet), nan));
  const __m128i high = _mm_srli_epi32(chosen, 16);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi32(high, high));
}

STROBE_INLINE Floats load_bytes(const std::uint8_t* from) {
  return _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_loadu_si32(from)));
}

/// float16 by integer arithmetic (there is no F16C here): shift the exponent into float32's place and multiply by the
/// difference of the biases, which also makes subnormals right.
STROBE_INLINE Floats load_half(const std::uint16_t* from) {
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(wide, _mm_set1_epi32(0x8000)), 16);
  const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(wide, _mm_set1_epi32(0x7fff)), 13);
  const __m128 finite = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
  const __m128i special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((0x7c00 << 13) - 1));
  const __m128i infinite = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
  return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(finite), infinite), sign));
}
/// Rounds to nearest, ties to even. The addition of a magic number rounds at float16's last bit: for subnormals at a
/// fixed place, for normals by carrying out of the 13 bits that go away.
STROBE_INLINE void store_half(std::uint16_t* to, Floats x) {
  const __m128i bits = _mm_castps_si128(x);
  const __m128i sign = _mm_and_si128(bits, _mm_set1_epi32(std::int32_t(0x80000000u)));
  const __m128i magnitude = _mm_xor_si128(bits, sign);
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(magnitude, 13), _mm_set1_epi32(1));
  const __m128i biased = _mm_add_epi32(magnitude, _mm_add_epi32(odd, _mm_set1_epi32(0xfff - (112 << 23))));
  const __m128i normal = _mm_srli_epi32(biased, 13);
  const __m128 shifted = _mm_add_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0.5f));
  const __m128i subnormal = _mm_sub_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(0x3f000000));
  const __m128i small = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(113 << 23));
  const __m128i huge = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x477fefff));
  const __m128i nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f800000));
  __m128i result = _mm_blendv_epi8(normal, subnormal, small);
  result = _mm_blendv_epi8(result, _mm_set1_epi32(0x7c00), huge);
  result = _mm_blendv_epi8(result, _mm_set1_epi32(0x7e00), nan);
  result = _mm_or_si128(result, _mm_srli_epi32(sign, 16));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi32(result, result));
}

/// float8 from tables: without F16C, arithmetic on four lanes is no quicker.
STROBE_INLINE Floats load_table(const std::uint8_t* from, const Float8Table& table) {
  return _mm_setr_ps(table.values[from[0]], table.values[from[1]], table.values[from[2]], table.values[from[3]]);
}
STROBE_INLINE Floats load_e4m3(const std::uint8_t* from) { return load_table(from, kE4M3Table); }
STROBE_INLINE Floats load_e5m2(const std::uint8_t* from) { return load_table(from, kE5M2Table); }

/// Lane i is the sum of the lanes of r[i], added in the same order for every i.
STROBE_INLINE Floats sums(const Floats (&r)[kLanes]) {
  const __m128 low = _mm_add_ps(_mm_unpacklo_ps(r[0], r[1]), _mm_unpackhi_ps(r[0], r[1]));
  const __m128 high = _mm_add_ps(_mm_unpacklo_ps(r[2], r[3]), _mm_unpackhi_ps(r[2], r[3]));
  return _mm_add_ps(_mm_movelh_ps(low, high), _mm_movehl_ps(high, low));
}

/// Transposes a kLanes x kLanes block held in registers.
STROBE_INLINE void transpose(Floats (&r)[kLanes]) { _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]); }

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
