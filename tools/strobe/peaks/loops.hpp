// Loops that do nothing but keep one unit of a core busy, one set per instruction set: the units that peaks.cpp times.
#pragma once

#include <cstdint>

#include "cpu/units.hpp"

namespace strobe::cpu {

struct PeakLoops {
  float (*multiply_add)(std::int64_t rounds);
  double multiply_add_flops;          // of one round
  float (*dot)(std::int64_t rounds);  // bf16 dot products; null without them
  double dot_flops;
  float (*tiles)(std::int64_t rounds);  // bf16 products of tile registers; null without them
  double tile_flops;
  float (*sum)(const float* from, std::int64_t count);  // count: a multiple of 256
};

STROBE_DECLARE_UNITS(PeakLoops, peak_loops)

}  // namespace strobe::cpu
