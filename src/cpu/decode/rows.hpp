// Rows of queries, keys, values and outputs on their way between storage and the forms that decode computes with.
#pragma once

#include "cpu/decode/block.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

template <typename T>
STROBE_INLINE void widen(const char* from, int count, float* to) {
  const T* row = reinterpret_cast<const T*>(from);
  int d = 0;
  for (; d + kLanes <= count; d += kLanes) store(to + d, load(row + d));
  if (d < count) store(to + d, load_first(row + d, count - d));
}

/// The zeros that fill the last vector are written too.
void widen_row(const char* from, DataType type, int count, float* to) {
  switch (type) {
    case DataType::kFloat16:
      return widen<Half>(from, count, to);
    case DataType::kBFloat16:
      return widen<BFloat16>(from, count, to);
    case DataType::kFloat8E4M3:
      return widen<E4M3>(from, count, to);
    case DataType::kFloat8E5M2:
      return widen<E5M2>(from, count, to);
    default:
      return widen<float>(from, count, to);
  }
}

template <typename T>
STROBE_INLINE void narrow(const float* from, int count, char* to) {
  T* row = reinterpret_cast<T*>(to);
  int d = 0;
  for (; d + kLanes <= count; d += kLanes) store(row + d, load(from + d));
  if (d < count) store_first(row + d, load(from + d), count - d);
}

void narrow_row(const float* from, DataType type, int count, char* to) {
  switch (type) {
    case DataType::kFloat16:
      return narrow<Half>(from, count, to);
    case DataType::kBFloat16:
      return narrow<BFloat16>(from, count, to);
    default:
      return narrow<float>(from, count, to);
  }
}

/// A step's floats from the order of dims to the format's own, or back.
template <typename Format, bool kBack>
STROBE_INLINE void reorder(float* step) {
  if constexpr (Format::kVectors > 1) {
    float before[Format::kDims];
    __builtin_memcpy(before, step, sizeof before);
    for (int place = 0; place < Format::kDims; ++place) {
      const int dim = Format::dim_of(place);
      step[kBack ? dim : place] = before[kBack ? place : dim];
    }
  }
}

STROBE_INLINE void clear(float* to, std::int64_t count) {
  for (std::int64_t n = 0; n < count; ++n) to[n] = 0.0f;
}

/// Copies a block's rows to where they are padded with zeros (and, of float8, floats); `rows` then points there.
void stage_rows(DataType type, int dim, int padded_dim, Bits any, char* staged, const char** rows) {
  const bool widened = size_of(type) == 1;
  const std::int64_t stride = padded_dim * std::int64_t(widened ? 4 : size_of(type));
  for (Bits left = any; left != 0; left &= left - 1) {
    const int n = __builtin_ctzll(left);
    char* to = staged + n * stride;
    if (widened) {
      widen_row(rows[n], type, dim, reinterpret_cast<float*>(to));
    } else {
      __builtin_memcpy(to, rows[n], std::size_t(dim) * size_of(type));
    }
    rows[n] = to;
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
