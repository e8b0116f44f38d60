// What CUDA C++ has and C++ has not, for kernels compiled by a C++ compiler: included before a kernel's text.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/simulator/machine.hpp"

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(bytes) alignas(bytes)
/// A block that comes here keeps such memory for itself until it ends.
#define __shared__                          \
  ::strobe::simulator::own_static_memory(); \
  static

#define threadIdx ::strobe::simulator::thread_index
#define blockIdx ::strobe::simulator::block_index
#define blockDim ::strobe::simulator::block_size
#define gridDim ::strobe::simulator::grid_size

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Not by <cmath>, which takes longer to read than most kernels take to compile.
inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
inline float fminf(float a, float b) { return __builtin_fminf(a, b); }
inline float fabsf(float x) { return __builtin_fabsf(x); }
inline float rintf(float x) { return __builtin_rintf(x); }
inline float logf(float x) { return __builtin_logf(x); }

inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(unsigned(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }

inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}

inline void __syncthreads() { strobe::simulator::barrier_wait(0, 0); }
inline int __syncthreads_or(int value) { return strobe::simulator::any_of_block(value != 0); }
inline void __syncwarp(unsigned mask = ~0u) {
  strobe::simulator::together(mask, nullptr, [](void* const*) {});
}

namespace strobe::simulator {

template <typename T>
struct Exchange {
  T value;
  int from;  // lane
  T result;
};

template <typename T>
T exchanged(unsigned mask, T value, int from) {
  Exchange<T> mine{value, from, value};
  together(mask, &mine, [](void* const* lanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      auto* one = static_cast<Exchange<T>*>(lanes[lane]);
      if (one == nullptr) continue;
      const auto* other = static_cast<const Exchange<T>*>(lanes[one->from]);
      if (other == nullptr) fail("reads the register of a lane that takes no part");
      one->result = other->value;
    }
  });
  return mine.result;
}

inline int lane() { return int(thread_index.x) % kLanes; }

}  // namespace strobe::simulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = strobe::simulator::lane();
  return strobe::simulator::exchanged(mask, value, lane / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int flips, int width = 32) {
  const int lane = strobe::simulator::lane(), from = lane ^ flips;
  return strobe::simulator::exchanged(mask, value, from / width <= lane / width ? from : lane);
}

inline unsigned __ballot_sync(unsigned mask, int value) {
  struct Vote {
    bool value;
    unsigned answer;
  } mine{value != 0, 0};
  strobe::simulator::together(mask, &mine, [](void* const* lanes) {
    unsigned answer = 0;
    for (int lane = 0; lane < strobe::simulator::kLanes; ++lane) {
      if (lanes[lane] != nullptr && static_cast<Vote*>(lanes[lane])->value) answer |= 1u << lane;
    }
    for (int lane = 0; lane < strobe::simulator::kLanes; ++lane) {
      if (lanes[lane] != nullptr) static_cast<Vote*>(lanes[lane])->answer = answer;
    }
  });
  return mine.answer;
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value) == mask; }

inline int __reduce_add_sync(unsigned mask, int value) {
  struct Addend {
    int value, sum;
  } mine{value, 0};
  strobe::simulator::together(mask, &mine, [](void* const* lanes) {
    int sum = 0;
    for (int lane = 0; lane < strobe::simulator::kLanes; ++lane) {
      if (lanes[lane] != nullptr) sum += static_cast<Addend*>(lanes[lane])->value;
    }
    for (int lane = 0; lane < strobe::simulator::kLanes; ++lane) {
      if (lanes[lane] != nullptr) static_cast<Addend*>(lanes[lane])->sum = sum;
    }
  });
  return mine.sum;
}
