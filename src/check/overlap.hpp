// Whether views share memory. Views that interleave in one buffer, such as the query, key and value slices of a packed
// QKV tensor, are told apart. Tensors must have passed expect_layout.
#pragma once

#include <initializer_list>

#include "strobe/types.hpp"

namespace strobe::check {

inline bool is_empty(const Tensor& tensor) {
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) return true;
  }
  return tensor.rank == 0;
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
