// Fragments are gathered into matrices, multiplied, and handed back: PTX ISA, "Matrix Fragments for mma.m16n8k16" (and
// m16n8k8) and "Warp-level matrix load instruction: ldmatrix".
#include "cuda/simulator/instructions.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.hpp"
#include "cuda/simulator/machine.hpp"

namespace strobe::simulator {
namespace {

struct MatrixAccess {
  std::uint32_t address;
  std::uint32_t* r;
};

struct Product {
  float* d;
  const std::uint32_t* a;
  std::uint32_t b[2];
};

float as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// Element `n` of a word of operands.
template <Operand kOperand>
float value_of(std::uint32_t word, int n) {
  if (kOperand == Operand::kTf32) return as_float(word & 0xffffe000u);
  return to_float(kOperand, std::uint16_t(word >> 16 * n));
}

std::uint32_t as_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

/// Of sums' addends, the unit in which they are cut off: 2^-24 of the largest one, as its reciprocal and itself.
struct Unit {
  float scale, size;
};
Unit unit_of(float largest) {
  constexpr int kBias = 127, kFirstBit = 23, kBits = 24, kLeast = 28;  // so that both are normal numbers
  const int exponent = std::max(int(as_bits(largest) >> kFirstBit), kLeast);
  return {as_float(std::uint32_t(2 * kBias + kBits - exponent) << kFirstBit),
          as_float(std::uint32_t(exponent - kBits) << kFirstBit)};
}

float toward_zero(double exact) {
  const auto rounded = float(exact);
  return std::fabs(double(rounded)) > std::fabs(exact) ? as_float(as_bits(rounded) - 1) : rounded;
}

template <Operand kOperand>
void multiply(void* const* lanes) {
  constexpr int kRows = 16, kColumns = 8, kElements = kOperand == Operand::kTf32 ? 1 : 2;  // of a word
  constexpr int kDepth = 8 * kElements;
  float a[kRows][kDepth], b[kDepth][kColumns], d[kRows][kColumns];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& one = *static_cast<const Product*>(lanes[lane]);
    const int row = lane / 4, place = lane % 4;
    for (int i = 0; i < kElements; ++i) {
      const int k = place * kElements + i;
      for (int n = 0; n < 4; ++n) a[row + n % 2 * 8][k + n / 2 * (kDepth / 2)] = value_of<kOperand>(one.a[n], i);
      for (int n = 0; n < 2; ++n) b[k + n * (kDepth / 2)][row] = value_of<kOperand>(one.b[n], i);
    }
    for (int n = 0; n < 4; ++n) d[row + n / 2 * 8][place * 2 + n % 2] = one.d[n];
  }
  for (int i = 0; i < kRows; ++i) add_products(a[i], b[0], kDepth, kColumns, d[i]);
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& one = *static_cast<const Product*>(lanes[lane]);
    for (int n = 0; n < 4; ++n) one.d[n] = d[lane / 4 + n / 2 * 8][lane % 4 * 2 + n % 2];
  }
}

template <bool kTrans>
void load_matrices(void* const* lanes) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::uint16_t elements[8][8];
    for (int row = 0; row < 8; ++row) {
      const auto& one = *static_cast<const MatrixAccess*>(lanes[matrix * 8 + row]);
      std::memcpy(elements[row], shared_memory + one.address, 16);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      const std::uint32_t low = kTrans ? elements[column][row] : elements[row][column];
      const std::uint32_t high = kTrans ? elements[column + 1][row] : elements[row][column + 1];
      static_cast<const MatrixAccess*>(lanes[lane])->r[matrix] = low | high << 16;
    }
  }
}

}  // namespace

/// As far as is known (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021):
/// what lies below 24 bits of the largest addend is cut off each of them, and so is what float32 cannot hold of the
/// sum. Products are exact in float32.
void add_products(const float* left, const float* right, int depth, int columns, float* sums) {
  float largest[kMostColumns], plain[kMostColumns];
  std::int32_t units[kMostColumns];
  Unit unit[kMostColumns];
  for (int j = 0; j < columns; ++j) {
    plain[j] = sums[j];
    largest[j] = std::fabs(sums[j]);
  }
  for (int k = 0; k < depth; ++k) {
    for (int j = 0; j < columns; ++j) {
      const float product = left[k] * right[k * columns + j];
      plain[j] += product;
      largest[j] = std::max(largest[j], std::fabs(product));
    }
  }
  for (int j = 0; j < columns; ++j) {
    unit[j] = unit_of(largest[j]);
    units[j] = std::int32_t(sums[j] * unit[j].scale);
  }
  for (int k = 0; k < depth; ++k) {
    for (int j = 0; j < columns; ++j) units[j] += std::int32_t(left[k] * right[k * columns + j] * unit[j].scale);
  }
  for (int j = 0; j < columns; ++j) {
    sums[j] = std::isfinite(plain[j]) ? toward_zero(double(units[j]) * double(unit[j].size)) : plain[j];
  }
}

float to_float(Operand operand, std::uint16_t bits) {
  return operand == Operand::kBFloat16 ? as_float(std::uint32_t(bits) << 16) : from_float16(bits);
}

void ldmatrix_x4(std::uint32_t address, std::uint32_t* r, bool trans) {
  read(address, 16);
  MatrixAccess mine{address, r};
  together(~0u, &mine, trans ? load_matrices<true> : load_matrices<false>);
}

void stmatrix_x4(std::uint32_t address, const std::uint32_t* r) {
  written(address, 16);
  MatrixAccess mine{address, const_cast<std::uint32_t*>(r)};
  together(~0u, &mine, [](void* const* lanes) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int row = 0; row < 8; ++row) {
        std::uint32_t words[4];
        for (int n = 0; n < 4; ++n) words[n] = static_cast<const MatrixAccess*>(lanes[row * 4 + n])->r[matrix];
        const auto& one = *static_cast<const MatrixAccess*>(lanes[matrix * 8 + row]);
        std::memcpy(shared_memory + one.address, words, 16);
      }
    }
  });
}

void mma(Operand operand, float* d, const std::uint32_t* a, std::uint32_t b0, std::uint32_t b1) {
  Product mine{d, a, {b0, b1}};
  switch (operand) {
    case Operand::kFloat16:
      return together(~0u, &mine, multiply<Operand::kFloat16>);
    case Operand::kBFloat16:
      return together(~0u, &mine, multiply<Operand::kBFloat16>);
    case Operand::kTf32:
      return together(~0u, &mine, multiply<Operand::kTf32>);
  }
}

std::uint16_t to_bfloat16(float value) { return bfloat16_from_float(value); }
std::uint16_t to_float16(float value) { return half_from_float(value); }

float from_float16(std::uint16_t bits) {
  static const std::vector<float>& values = *[] {
    auto* table = new std::vector<float>(1 << 16);
    for (std::size_t n = 0; n < table->size(); ++n) (*table)[n] = float_from_half(std::uint16_t(n));
    return table;
  }();
  return values[bits];
}

float exp2_flushed(float x) {
  const float result = std::exp2(x);
  return result < 0x1p-126f ? 0.0f : result;
}

float reciprocal_flushed(float x) {
  const float result = 1.0f / x;
  return std::fabs(result) < 0x1p-126f ? std::copysign(0.0f, result) : result;
}

}  // namespace strobe::simulator
