// Memory of one tensor of a case: guard bytes around it, gaps between its rows where the layout has them, and all of it
// poisoned, so that whatever is not written on purpose holds NaN.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "strobe/types.hpp"

namespace strobe::cases {

/// The byte of poisoned memory: 0xffff... is NaN in every floating type, -1 as an integer.
inline constexpr unsigned char kPoison = 0xff;

class Storage {
 public:
  /// Memory for a tensor with these shape and strides, beginning `skipped` elements after an aligned address.
  Storage(std::string name, const Tensor& layout, std::int64_t skipped);

  const std::string& name() const { return name_; }
  const Tensor& tensor() const { return tensor_; }
  /// Everything: guards, gaps and the tensor.
  std::span<unsigned char> bytes() { return bytes_; }
  /// From the tensor's first element to its last, gaps included.
  std::span<unsigned char> span();
  /// From here on changed() compares with the present contents.
  void remember() { remembered_ = bytes_; }
  void restore() { bytes_ = remembered_; }
  bool changed() const { return bytes_ != remembered_; }
  /// Whether every byte that is not an element of the tensor is still poison.
  bool surroundings_intact() const;

 private:
  std::string name_;
  std::vector<unsigned char> bytes_, remembered_;
  Tensor tensor_;
};

/// Calls visit(index, offset) for every element of the view: its index along each axis and its offset in elements.
template <class Visit>
void for_each_element(const Tensor& view, Visit&& visit) {
  if (view.elements() == 0) return;
  std::int64_t index[kMaxRank] = {};
  for (;;) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < view.rank; ++axis) offset += index[axis] * view.strides[axis];
    visit(index, offset);
    int axis = view.rank - 1;
    while (axis >= 0 && ++index[axis] == view.shape[axis]) index[axis--] = 0;
    if (axis < 0) return;
  }
}

}  // namespace strobe::cases
