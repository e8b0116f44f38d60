// The ground that device code stands on: the inlining mark, short integer names, lanes and warps, numeric helpers.
// Kernels are compiled by NVRTC without any CUDA header, so nothing here or above may include one.
#pragma once

#define STROBE_DEVICE __device__ __forceinline__

namespace strobe::cuda {

using i64 = long long;
using u64 = unsigned long long;
using u32 = unsigned int;
using u16 = unsigned short;
using u8 = unsigned char;

constexpr int kWarpLanes = 32;
constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;

STROBE_DEVICE int lane_index() { return int(threadIdx.x % kWarpLanes); }
STROBE_DEVICE int warp_index() { return int(threadIdx.x / kWarpLanes); }

STROBE_DEVICE float minus_infinity() { return __int_as_float(int(0xff800000u)); }

template <typename T>
STROBE_DEVICE constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
STROBE_DEVICE constexpr T larger(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
STROBE_DEVICE constexpr T clamped(T x, T low, T high) {
  return smaller(larger(x, low), high);
}

constexpr __host__ __device__ int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr __host__ __device__ int round_up(int a, int unit) { return ceil_div(a, unit) * unit; }

}  // namespace strobe::cuda
