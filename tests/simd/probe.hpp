// The SIMD verbs of one instruction set as functions over arrays, so that a test that is compiled for any machine can
// call them.
#pragma once

#include <cstdint>

#include "cpu/units.hpp"

namespace strobe::cpu {

struct Probe {
  int lanes;
  // All arrays have kLanes elements; results come last.
  void (*exp2)(const float* x, float* y);
  void (*tanh)(const float* x, float* y);
  void (*tanh_slope)(const float* x, float* y);
  void (*round)(const float* x, float* y);
  void (*fma)(const float* a, const float* b, const float* c, float* y);
  void (*select_less)(const float* a, const float* b, float* y);  // the smaller of each
  float (*sum)(const float* x);
  float (*largest)(const float* x);
  void (*load_half)(const std::uint16_t* x, float* y);
  void (*store_half)(const float* x, std::uint16_t* y);
  void (*load_bfloat16)(const std::uint16_t* x, float* y);
  void (*store_bfloat16)(const float* x, std::uint16_t* y);
  void (*load_e4m3)(const std::uint8_t* x, float* y);
  void (*load_e5m2)(const std::uint8_t* x, float* y);
  void (*copy_first)(const float* x, int count, float* y);
  void (*copy_first_bfloat16)(const std::uint16_t* x, int count, std::uint16_t* y);
  void (*transpose)(float* square);               // kLanes x kLanes, in place
  void (*exp2_coarse)(const float* x, float* y);  // these five with AMX only, else null
  /// sum [16][16] += a [16][32] * b [16][16][2], bf16 times bf16.
  void (*multiply_tiles)(const std::uint16_t* a, const std::uint16_t* b, float* sum);
  /// low, high [16] as pairs of pieces [3][16][2]; low, then high as a row of pieces [3][32].
  void (*split_pairs)(const float* low, const float* high, std::uint16_t* pieces);
  void (*cut_pairs)(const float* low, const float* high, std::uint16_t* pieces);
  void (*split_row)(const float* low, const float* high, std::uint16_t* pieces);
  void (*philox)(std::uint32_t (*counters)[4], std::uint64_t key);  // kLanes counters, in place
};

STROBE_DECLARE_UNITS(Probe, probe)

}  // namespace strobe::cpu
