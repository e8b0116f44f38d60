// The functions of src/cuda/device/ptx.cuh for the simulated GPU, which takes this file in its place.
#pragma once

#include "cuda/device/base.cuh"
#include "cuda/simulator/instructions.hpp"

namespace strobe::cuda::ptx {

namespace sim = strobe::simulator;

inline u32 shared_address(const void* pointer) { return sim::shared_address(pointer); }

inline void griddepcontrol_launch_dependents() {}

inline void cp_async_16(u32 to, const void* from, bool wanted) { sim::copy_later(to, from, wanted); }
inline void cp_async_commit() { sim::commit_copies(); }
template <int kPending>
inline void cp_async_wait() {
  sim::wait_for_copies(kPending);
}

template <typename T>
inline T ld_shared(u32 from) {
  T value;
  std::memcpy(&value, sim::read(from, sizeof(T)), sizeof(T));
  return value;
}
template <typename T>
inline void st_shared(u32 to, T value) {
  sim::store(to, &value, sizeof(T));
}
inline void st_shared_16(u32 to, uint4 value) { st_shared(to, value); }
inline void st_shared_4(u32 to, u32 value) { st_shared(to, value); }
inline void st_shared_2(u32 to, u16 value) { st_shared(to, value); }
inline void st_shared_f32x2(u32 to, float2 value) { st_shared(to, value); }
inline u32 ld_shared_4(u32 from) { return ld_shared<u32>(from); }
inline float2 ld_shared_f32x2(u32 from) { return ld_shared<float2>(from); }
inline uint4 ld_shared_16(u32 from) { return ld_shared<uint4>(from); }

inline int untraced(int value) { return value; }
inline void renew(u32&) {}

inline void ldmatrix_x4(u32 address, u32 (&r)[4]) { sim::ldmatrix_x4(address, r, false); }
inline void ldmatrix_x4_trans(u32 address, u32 (&r)[4]) { sim::ldmatrix_x4(address, r, true); }
inline void stmatrix_x4(u32 address, const u32 (&r)[4]) { sim::stmatrix_x4(address, r); }

inline void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  sim::mma(sim::Operand::kFloat16, d, a, b0, b1);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  sim::mma(sim::Operand::kBFloat16, d, a, b0, b1);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  sim::mma(sim::Operand::kTf32, d, a, b0, b1);
}

inline u32 cvt_bf16x2(float low, float high) { return sim::to_bfloat16(low) | u32(sim::to_bfloat16(high)) << 16; }
inline u32 cvt_f16x2(float low, float high) { return sim::to_float16(low) | u32(sim::to_float16(high)) << 16; }
inline float cvt_f32_f16(u16 half) { return sim::from_float16(half); }

inline float ex2(float x) { return sim::exp2_flushed(x); }
inline float lg2(float x) { return __builtin_log2f(x); }
inline float rcp(float x) { return sim::reciprocal_flushed(x); }
inline u64 mul_wide(u32 a, u32 b) { return u64(a) * b; }
inline float fma_sat(float a, float b, float c) {
  const float x = __builtin_fmaf(a, b, c);
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}

inline void bar_sync(int barrier, int threads) { sim::barrier_wait(barrier, threads); }
inline void bar_arrive(int barrier, int threads) { sim::barrier_arrive(barrier, threads); }

inline int ld_acquire(const int* from) {
  sim::spin();
  return *from;
}
/// Others see it before anything that the thread does later.
inline void st_release(int* to, int value) {
  *to = value;
  sim::spin();
}

inline u64 ld_relaxed_u64(const u64* from) { return *from; }
inline u64 atom_cas_relaxed_u64(u64* at, u64 expected, u64 value) {
  const u64 before = *at;
  if (before == expected) *at = value;
  return before;
}
inline u64 atom_add_relaxed_u64(u64* at, u64 value) {
  const u64 before = *at;
  *at += value;
  return before;
}
inline u64 atom_add_acq_rel_u64(u64* at, u64 value) {
  const u64 before = *at;
  *at += value;
  return before;
}

inline void red_add_f32(float* to, float value) { *to += value; }
inline void red_add_f32x4(float* to, const float (&value)[4]) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0) sim::fail("adds to an address that is not aligned");
  for (int n = 0; n < 4; ++n) to[n] += value[n];
}
inline float4 ld_global_cg_16(const float* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) sim::fail("reads from an address that is not aligned");
  return {from[0], from[1], from[2], from[3]};
}

}  // namespace strobe::cuda::ptx
