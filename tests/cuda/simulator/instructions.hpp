// The instructions of a warp's matrix units, and conversions, as the PTX ISA describes them.
#pragma once

#include <cstdint>

namespace strobe::simulator {

/// `trans`: each 8 x 8 matrix is transposed on the way.
void ldmatrix_x4(std::uint32_t address, std::uint32_t* r, bool trans);
void stmatrix_x4(std::uint32_t address, const std::uint32_t* r);

enum class Operand { kFloat16, kBFloat16, kTf32 };
/// d += a b: [16 x 16] [16 x 8], for tf32 [16 x 8] [8 x 8]. Sums are cut off, not rounded.
void mma(Operand operand, float* d, const std::uint32_t* a, std::uint32_t b0, std::uint32_t b1);

/// sums[j] += the sum over k of left[k] right[k * columns + j], as the tensor cores make sums.
constexpr int kMostColumns = 256;
void add_products(const float* left, const float* right, int depth, int columns, float* sums);

/// A 16-bit operand.
float to_float(Operand operand, std::uint16_t bits);

/// Rounded to nearest, ties to even.
std::uint16_t to_bfloat16(float value);
std::uint16_t to_float16(float value);
float from_float16(std::uint16_t bits);

/// 2^x, 1 / x: subnormal results become zero.
float exp2_flushed(float x);
float reciprocal_flushed(float x);

}  // namespace strobe::simulator
