// Scalar conversions between float and the narrow float types, by the IEEE 754 and OCP FP8 (v1.0) definitions.
// Exact and slow; kernels have their own vector forms.
#pragma once

#include <cstdint>

#include "strobe/types.hpp"

namespace strobe {

float float_from_half(std::uint16_t bits);
float float_from_bfloat16(std::uint16_t bits);
float float_from_e4m3(std::uint8_t bits);
float float_from_e5m2(std::uint8_t bits);

/// Round to nearest, ties to even; overflow gives infinity (e4m3: NaN, it has no infinity).
std::uint16_t half_from_float(float value);
std::uint16_t bfloat16_from_float(float value);
std::uint8_t e4m3_from_float(float value);
std::uint8_t e5m2_from_float(float value);

/// Element `index` of an array of any floating type, and its store.
float load_element(const void* data, DataType type, std::int64_t index);
void store_element(void* data, DataType type, std::int64_t index, float value);

}  // namespace strobe
