// The 16-bit element types as traits of the matrix kernels, and elements of any type as floats.
#pragma once

#include "cuda/device/ptx.cuh"
#include "cuda/params.hpp"

namespace strobe::cuda {

STROBE_DEVICE float bfloat16_value(u16 bits) { return __int_as_float(int(u32(bits) << 16)); }

struct Float16 {
  static constexpr float kLargeWeights = 0x1p15f;  // the type holds twice as much
  static STROBE_DEVICE u32 pack(float low, float high) { return ptx::cvt_f16x2(low, high); }
  static STROBE_DEVICE float low(u32 pair) { return ptx::cvt_f32_f16(u16(pair)); }
  static STROBE_DEVICE float high(u32 pair) { return ptx::cvt_f32_f16(u16(pair >> 16)); }
  static STROBE_DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_m16n8k16_f16(d, a, b0, b1);
  }
};

struct BFloat16 {
  static constexpr float kLargeWeights = 0x1p40f;  // leaves float32 sums of any length finite
  static STROBE_DEVICE u32 pack(float low, float high) { return ptx::cvt_bf16x2(low, high); }
  static STROBE_DEVICE float low(u32 pair) { return __int_as_float(int(pair << 16)); }
  static STROBE_DEVICE float high(u32 pair) { return __int_as_float(int(pair & 0xffff0000u)); }
  static STROBE_DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_m16n8k16_bf16(d, a, b0, b1);
  }
};

/// The traits of a STROBE_TYPE option.
template <int kElement>
struct ElementOf;
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
