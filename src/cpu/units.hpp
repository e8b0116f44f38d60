// The instruction-set units of every kernel as tables of functions. Each namespace strobe::cpu::<isa> defines them in
// src/cpu/<kernel>/unit.cpp, compiled once per instruction set; drivers pick one by the plan's decision.
#pragma once

#include "base/device.hpp"

/// Declares `Unit unit_name()` in each instruction set's namespace, and `pick_<unit_name>(isa)` over them.
#define STROBE_DECLARE_UNITS(Unit, unit_name)    \
  namespace sse4 {                               \
  const Unit& unit_name();                       \
  }                                              \
  namespace avx2 {                               \
  const Unit& unit_name();                       \
  }                                              \
  namespace avx512 {                             \
  const Unit& unit_name();                       \
  }                                              \
  namespace avx512_bf16 {                        \
  const Unit& unit_name();                       \
  }                                              \
  namespace amx_bf16 {                           \
  const Unit& unit_name();                       \
  }                                              \
  inline const Unit& pick_##unit_name(Isa isa) { \
    switch (isa) {                               \
      case Isa::kAmxBf16:                        \
        return amx_bf16::unit_name();            \
      case Isa::kAvx512Bf16:                     \
        return avx512_bf16::unit_name();         \
      case Isa::kAvx512:                         \
        return avx512::unit_name();              \
      case Isa::kAvx2:                           \
        return avx2::unit_name();                \
      case Isa::kSse4:                           \
        break;                                   \
    }                                            \
    return sse4::unit_name();                    \
  }
