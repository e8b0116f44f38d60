// Functions that every instruction set builds from its verbs: exp2, tanh, log2, typed loads and stores, Philox.
#pragma once

#include <cstdint>

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;
constexpr float kMinusInfinity = -__builtin_huge_valf();

#if STROBE_ISA_ID >= 2
/// 2^x for x <= 127: about 1 ulp, 0 below -126 and for -inf; NaN stays NaN.
/// A minimax polynomial of degree 5 on [0, 1], 1 at 0 (fitted by least squares with moving weights; relative error
/// 1.4e-7 with all rounding).
STROBE_INLINE Floats exp2(Floats x) {
  const Floats f = above_floor(x);
  Floats p = broadcast(1.867130282e-3f);
  p = fma(p, f, broadcast(9.017029777e-3f));
  p = fma(p, f, broadcast(5.579991266e-2f));
  p = fma(p, f, broadcast(2.401644737e-1f));
  p = fma(p, f, broadcast(6.931512952e-1f));
  p = fma(p, f, broadcast(1.0f));
  return scale_by_floor(p, x);
}
#else
/// 2^x for x <= 127: about 1 ulp, 0 below -126 and for -inf; NaN stays NaN.
/// A minimax polynomial of degree 5 on [-0.5, 0.5] (fitted by Remez; relative error 1.1e-7).
STROBE_INLINE Floats exp2(Floats x) {
  x = max(broadcast(-252.0f), x);  // the second operand is the one a NaN comes through
  const Floats whole = round(x);
  const Floats f = sub(x, whole);
  Floats p = broadcast(1.326472731e-3f);
  p = fma(p, f, broadcast(9.671512991e-3f));
  p = fma(p, f, broadcast(5.550733581e-2f));
  p = fma(p, f, broadcast(2.402224243e-1f));
  p = fma(p, f, broadcast(6.931470037e-1f));
  p = fma(p, f, broadcast(1.0f));
  return scale_by_power(p, whole);
}
#endif

/// tanh x to about 2 ulp, as (e^2x - 1) / (e^2x + 1). With e^2x = 2^n (1 + r), the numerator 2^n r + (2^n - 1) keeps
/// its digits near zero, so no case is set apart. r is a minimax polynomial on [-0.5, 0.5] (fitted by least squares
/// with moving weights; relative error 1.1e-8), its first coefficient takes in the rounding of 2 log2(e).
STROBE_INLINE Floats tanh(Floats x) {
  const Floats y = mul(min(broadcast(20.0f), max(broadcast(-20.0f), x)), broadcast(2.0f * kLog2E));  // NaN stays NaN
  const Floats whole = round(y);
  const Floats f = sub(y, whole);
  Floats p = broadcast(1.540351248e-4f);
  p = fma(p, f, broadcast(1.339073654e-3f));
  p = fma(p, f, broadcast(9.618238013e-3f));
  p = fma(p, f, broadcast(5.550357656e-2f));
  p = fma(p, f, broadcast(2.402265044e-1f));
  const Floats r = fma(f, broadcast(6.931471972e-1f), mul(mul(f, f), p));
  const Floats power = scale_by_power(broadcast(1.0f), whole);
  const Floats numerator = fma(power, r, sub(power, broadcast(1.0f)));
  return quotient(numerator, add(numerator, broadcast(2.0f)));
}

/// tanh's derivative, 1 - tanh^2 x, to a few ulp of itself however small: 4 e / (1 + e)^2 with e = e^-2|x|. Where tanh
/// is close to 1, the difference would keep no digit.
STROBE_INLINE Floats tanh_slope(Floats x) {
  const Floats e = exp2(mul(abs(x), broadcast(-2.0f * kLog2E)));
  const Floats r = div(broadcast(2.0f), add(broadcast(1.0f), e));
  return mul(mul(e, r), r);
}

/// kLanes elements of any storage type, as floats.
STROBE_INLINE Floats load(const Half* from) { return load_half(&from->bits); }
STROBE_INLINE Floats load(const BFloat16* from) { return load_bfloat16(&from->bits); }
STROBE_INLINE Floats load(const E4M3* from) { return load_e4m3(&from->bits); }
STROBE_INLINE Floats load(const E5M2* from) { return load_e5m2(&from->bits); }
STROBE_INLINE Floats load(const Byte* from) { return load_bytes(&from->bits); }
STROBE_INLINE void store(Half* to, Floats x) { store_half(&to->bits, x); }
STROBE_INLINE void store(BFloat16* to, Floats x) { store_bfloat16(&to->bits, x); }

/// The first `count` elements, zero elsewhere; nothing past them is touched.
template <typename T>
STROBE_INLINE Floats load_first(const T* from, int count) {
  T lanes[kLanes] = {};
  for (int lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load(lanes);
}
template <typename T>
STROBE_INLINE void store_first(T* to, Floats x, int count) {
  T lanes[kLanes];
  store(lanes, x);
  for (int lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

/// Philox-4x32-10 with one counter a lane: the vector form of base/philox.hpp, which defines it.
STROBE_INLINE void philox(Ints (&counter)[4], std::uint64_t key) {
  std::uint32_t key0 = std::uint32_t(key), key1 = std::uint32_t(key >> 32);
  const Ints multiplier0 = broadcast_int(std::int32_t(0xD2511F53u));
  const Ints multiplier1 = broadcast_int(std::int32_t(0xCD9E8D57u));
  for (int round = 0; round < 10; ++round) {
    Ints high0, low0, high1, low1;
    multiply_wide(counter[0], multiplier0, high0, low0);
    multiply_wide(counter[2], multiplier1, high1, low1);
    counter[0] = xor_ints(xor_ints(high1, counter[1]), broadcast_int(std::int32_t(key0)));
    counter[1] = low1;
    counter[2] = xor_ints(xor_ints(high0, counter[3]), broadcast_int(std::int32_t(key1)));
    counter[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
