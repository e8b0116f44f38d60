// Whether views share memory. Views that interleave in one buffer, such as the query, key and value slices of a packed
// QKV tensor, are told apart. Tensors must have passed expect_layout.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "strobe/types.hpp"

namespace strobe::check {

inline bool is_empty(const Tensor& tensor) {
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) return true;
  }
  return tensor.rank == 0;
}

/// The first byte of a view and how many lie from there to its last. Addresses count modulo 2^64, so that a view which
/// reaches past either end of the address space is judged like any other.
struct Extent {
  std::uint64_t first = 0, length = 0;
};
Extent extent_of(const Tensor& tensor);
inline bool meet(const Extent& a, const Extent& b) {
  return b.first - a.first < a.length || a.first - b.first < b.length;
}

/// Never true for a view with overlapping elements; false for some odd interleavings that have none.
bool elements_are_distinct(const Tensor& tensor);

/// Never false for views that share memory; true for some odd interleavings that do not.
bool may_share_memory(const Tensor& a, const Tensor& b);

struct Named {
  const char* argument;
  const Tensor& tensor;
};
/// @throws Error if an output shares memory with an input or another output.
void expect_separate(std::initializer_list<Named> outputs, std::initializer_list<Named> inputs);

}  // namespace strobe::check
