// The SIMD verbs of one instruction set: Floats, Ints, Mask and a few dozen functions on them, in an unnamed namespace
// of strobe::cpu::<isa>. A unit is compiled once per instruction set with STROBE_ISA set to its name; everything in it
// has internal linkage, so that the linker never shares AVX-512 code with a machine that lacks it.
//
// Every instruction set defines:
//   kLanes        floats in a vector
//   kTileVectors  vectors of lanes in a register tile, kTileRows rows: kTileVectors * kTileRows accumulators
//   load store broadcast zero add sub mul fma max min select  less_than equal  ...
// and kHasDot with dot() where there is a bf16 dot product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/elements.hpp"

#if !defined(STROBE_ISA)
#error "compile this through a unit: STROBE_ISA names the instruction set"
#endif

#define STROBE_INLINE inline __attribute__((always_inline))
#define STROBE_NOINLINE __attribute__((noinline))

#define STROBE_ISA_ID_sse4 0
#define STROBE_ISA_ID_avx2 1
#define STROBE_ISA_ID_avx512 2
#define STROBE_ISA_ID_avx512_bf16 3
#define STROBE_ISA_ID_amx_bf16 4
#define STROBE_CONCAT_(a, b) a##b
#define STROBE_CONCAT(a, b) STROBE_CONCAT_(a, b)
#define STROBE_ISA_ID STROBE_CONCAT(STROBE_ISA_ID_, STROBE_ISA)

#if STROBE_ISA_ID >= 2
#include "cpu/simd/avx512.hpp"
#elif STROBE_ISA_ID == 1
#include "cpu/simd/avx2.hpp"
#else
#include "cpu/simd/sse4.hpp"
#endif

#if STROBE_ISA_ID == 4
#include "cpu/simd/amx.hpp"
#endif

#include "cpu/simd/math.hpp"
