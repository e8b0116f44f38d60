// One function, one instruction: the PTX that C++ has no words for, for sm_80 and later. All inline assembly of the
// sm80 kernels is here. Names follow the PTX ISA.
#pragma once

#include "cuda/device/base.cuh"

namespace strobe::cuda::ptx {

/// The address of shared memory as instructions want it.
STROBE_DEVICE u32 shared_address(const void* pointer) { return u32(__cvta_generic_to_shared(pointer)); }

/// Once all blocks of the grid have come here or ended, the next kernel may start where there is room, if it was
/// launched to (Start::kEarly). Nothing where GPUs do not know of it.
STROBE_DEVICE void griddepcontrol_launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Copies 16 bytes from global to shared memory in the background, or, where not `wanted`, writes zeros and reads
/// nothing. (A predicate, not a size: ptxas 13.0 spends eight instructions on a size that it does not know.)
STROBE_DEVICE void cp_async_16(u32 to, const void* from, bool wanted) {
  asm volatile(
      "{\n.reg .pred ignored;\nsetp.eq.b32 ignored, %2, 0;\n"
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, ignored;\n}" ::"r"(to),
      "l"(from), "r"(int(wanted))
      : "memory");
}
STROBE_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `kPending` of the groups that this thread committed are still under way.
template <int kPending>
STROBE_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

STROBE_DEVICE void st_shared_16(u32 to, uint4 value) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}
STROBE_DEVICE void st_shared_4(u32 to, u32 value) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}
STROBE_DEVICE void st_shared_2(u32 to, u16 value) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(value) : "memory");
}
STROBE_DEVICE u32 ld_shared_4(u32 from) {
  u32 r;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(r) : "r"(from) : "memory");
  return r;
}
STROBE_DEVICE void st_shared_f32x2(u32 to, float2 value) {
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(to), "f"(value.x), "f"(value.y) : "memory");
}
STROBE_DEVICE float2 ld_shared_f32x2(u32 from) {
  float2 r;
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(r.x), "=f"(r.y) : "r"(from) : "memory");
  return r;
}
STROBE_DEVICE uint4 ld_shared_16(u32 from) {
  uint4 r;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "r"(from)
               : "memory");
  return r;
}

/// The same value, of which the compiler knows nothing: what is computed from it stays where it is computed, and does
/// not occupy registers all through a loop.
STROBE_DEVICE int untraced(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

/// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
STROBE_DEVICE void ldmatrix_x4(u32 address, u32 (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
/// The same, each matrix transposed.
STROBE_DEVICE void ldmatrix_x4_trans(u32 address, u32 (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// The way back of ldmatrix_x4; sm_90 and later.
STROBE_DEVICE void stmatrix_x4(u32 address, const u32 (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}

/// d += a b: [16 x 16] [16 x 8], float16 operands, float32 sums.
STROBE_DEVICE void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// d += a b: [16 x 16] [16 x 8], bfloat16 operands, float32 sums.
STROBE_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// d += a b: [16 x 8] [8 x 8], operands float32 whose low 13 bits are not looked at.
STROBE_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats rounded to nearest, `low` in the low half.
STROBE_DEVICE u32 cvt_bf16x2(float low, float high) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
STROBE_DEVICE u32 cvt_f16x2(float low, float high) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
STROBE_DEVICE float cvt_f32_f16(u16 half) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(half));
  return r;
}

/// No instruction: to the compiler a new value, which it cannot know anything about.
STROBE_DEVICE void renew(u32& value) { asm volatile("" : "+r"(value)); }

/// 2^x, about 2 ulp, subnormal results flushed.
STROBE_DEVICE float ex2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
/// log2 x
STROBE_DEVICE float lg2(float x) {
  float r;
  asm("lg2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
/// 1 / x, about 1 ulp.
STROBE_DEVICE float rcp(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

/// The whole product. (Of 64-bit operands whose high halves are zero, nvcc 13.0 adds the products of those as well.)
STROBE_DEVICE u64 mul_wide(u32 a, u32 b) {
  u64 r;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(r) : "r"(a), "r"(b));
  return r;
}
/// a * b + c within [0, 1]; 0 where it is NaN.
STROBE_DEVICE float fma_sat(float a, float b, float c) {
  float r;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}

/// A barrier among the `threads` that name it: `bar_sync` waits for all of them, `bar_arrive` only counts. What a
/// thread wrote before it arrived, those that wait see afterwards.
STROBE_DEVICE void bar_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
STROBE_DEVICE void bar_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// A counter in global memory that blocks hand work over with: what the writer's block did before, the reader's block
/// sees afterwards.
STROBE_DEVICE int ld_acquire(const int* from) {
  int r;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(r) : "l"(from) : "memory");
  return r;
}
STROBE_DEVICE void st_release(int* to, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

/// Words of global memory that blocks agree by, whatever else they have to do with each other's memory.
STROBE_DEVICE u64 ld_relaxed_u64(const u64* from) {
  u64 r;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(r) : "l"(from) : "memory");
  return r;
}
/// Puts `value` in place of `expected`, if that is what is there. Returns what was there.
STROBE_DEVICE u64 atom_cas_relaxed_u64(u64* at, u64 expected, u64 value) {
  u64 r;
  asm volatile("atom.relaxed.gpu.global.cas.b64 %0, [%1], %2, %3;"
               : "=l"(r)
               : "l"(at), "l"(expected), "l"(value)
               : "memory");
  return r;
}
/// Adds and returns what was there.
STROBE_DEVICE u64 atom_add_relaxed_u64(u64* at, u64 value) {
  u64 r;
  asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;" : "=l"(r) : "l"(at), "l"(value) : "memory");
  return r;
}
/// The same: hands over what the block did before, and takes over what those did who came
/// earlier.
STROBE_DEVICE u64 atom_add_acq_rel_u64(u64* at, u64 value) {
  u64 r;
  asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(r) : "l"(at), "l"(value) : "memory");
  return r;
}

/// Adds to global memory without reading it back.
STROBE_DEVICE void red_add_f32(float* to, float value) {
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(to), "f"(value) : "memory");
}
/// The same for 16 bytes at once; sm_90 and later.
STROBE_DEVICE void red_add_f32x4(float* to, const float (&value)[4]) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(value[0]), "f"(value[1]),
               "f"(value[2]), "f"(value[3])
               : "memory");
}
/// Global memory as other blocks left it, past the first-level cache.
STROBE_DEVICE float4 ld_global_cg_16(const float* from) {
  float4 r;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(r.x), "=f"(r.y), "=f"(r.z), "=f"(r.w)
               : "l"(from)
               : "memory");
  return r;
}

}  // namespace strobe::cuda::ptx
