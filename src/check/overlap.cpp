// Memory sharing of strided views, by peeling common strides from the outside in.
#include "check/overlap.hpp"

#include <cstdint>
#include <string>
#include <utility>

#include "check/facts.hpp"

namespace strobe::check {
namespace {

/// The bytes of a view: runs of `width` bytes repeated along axes of positive stride, outermost (largest) first.
struct Footprint {
  struct Axis {
    std::int64_t stride, count;
  };
  std::uint64_t first = 0;
  std::int64_t width = 0;
  int rank = 0;
  Axis axes[kMaxRank] = {};

  std::int64_t span_from(int axis) const {
    std::int64_t span = width;
    for (int inner = axis; inner < rank; ++inner) span += axes[inner].stride * (axes[inner].count - 1);
    return span;
  }
};

/// Axes of size 1 and stride 0 add no bytes, negative strides are turned round, and axes that continue each other fuse.
Footprint footprint_of(const Tensor& tensor) {
  Footprint result;
  const std::int64_t size = std::int64_t(size_of(tensor.dtype));
  result.first = reinterpret_cast<std::uintptr_t>(tensor.data);
  result.width = size;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const std::int64_t count = tensor.shape[axis];
    std::int64_t stride = tensor.strides[axis] * (count > 1 ? size : 0);
    if (stride == 0) continue;
    if (stride < 0) {
      result.first += std::uint64_t(stride * (count - 1));
      stride = -stride;
    }
    int place = result.rank++;
    for (; place > 0 && result.axes[place - 1].stride < stride; --place) result.axes[place] = result.axes[place - 1];
    result.axes[place] = {stride, count};
  }
  while (result.rank > 0 && result.axes[result.rank - 1].stride == result.width) {
    result.width *= result.axes[--result.rank].count;
  }
  for (int axis = result.rank - 1; axis > 0; --axis) {
    Footprint::Axis &outer = result.axes[axis - 1], inner = result.axes[axis];
    if (outer.stride != inner.stride * inner.count) continue;
    outer = {inner.stride, inner.count * outer.count};
    for (int moved = axis; moved + 1 < result.rank; ++moved) result.axes[moved] = result.axes[moved + 1];
    --result.rank;
  }
  return result;
}

/// Both footprints from `axis` inwards, b's first byte `offset` bytes after a's.
bool may_meet(const Footprint& a, const Footprint& b, int axis, std::int64_t offset) {
  const std::int64_t span_a = a.span_from(axis), span_b = b.span_from(axis);
  if (offset >= span_a || offset <= -span_b) return false;
  if (axis >= a.rank || axis >= b.rank || a.axes[axis].stride != b.axes[axis].stride) return true;
  const std::int64_t stride = a.axes[axis].stride;
  if (a.span_from(axis + 1) > stride || b.span_from(axis + 1) > stride) return true;
  const std::int64_t within = (offset % stride + stride) % stride;
  return may_meet(a, b, axis + 1, within) || may_meet(a, b, axis + 1, within - stride);
}

}  // namespace

Extent extent_of(const Tensor& tensor) {
  const std::int64_t size = std::int64_t(size_of(tensor.dtype));
  std::int64_t below = 0, above = size;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const std::int64_t reach = tensor.strides[axis] * (tensor.shape[axis] - 1) * size;
    (reach < 0 ? below : above) += reach;
  }
  const auto data = reinterpret_cast<std::uintptr_t>(tensor.data);
  return {data + std::uint64_t(below), std::uint64_t(above - below)};
}

bool elements_are_distinct(const Tensor& tensor) {
  if (is_empty(tensor)) return true;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] > 1 && tensor.strides[axis] == 0) return false;
  }
  const Footprint footprint = footprint_of(tensor);
  for (int axis = 0; axis < footprint.rank; ++axis) {
    if (footprint.axes[axis].stride < footprint.span_from(axis + 1)) return false;
  }
  return true;
}

bool may_share_memory(const Tensor& a, const Tensor& b) {
  if (is_empty(a) || is_empty(b) || a.data == nullptr || b.data == nullptr) return false;
  if (!meet(extent_of(a), extent_of(b))) return false;  // mostly so, which is seen in an instant
  const Footprint of_a = footprint_of(a), of_b = footprint_of(b);
  return may_meet(of_a, of_b, 0, std::int64_t(of_b.first - of_a.first));
}

void expect_separate(std::initializer_list<Named> outputs, std::initializer_list<Named> inputs) {
  for (const Named* output = outputs.begin(); output != outputs.end(); ++output) {
    if (!output->tensor.given()) continue;
    const auto refuse_sharing = [&](const Named& other) {
      refuse(output->argument, std::string("memory that ") + other.argument + " uses, too",
             "memory of its own, since it is written");
    };
    for (const Named& input : inputs) {
      if (input.tensor.given() && may_share_memory(output->tensor, input.tensor)) refuse_sharing(input);
    }
    for (const Named* other = outputs.begin(); other != output; ++other) {
      if (other->tensor.given() && may_share_memory(output->tensor, other->tensor)) refuse_sharing(*other);
    }
  }
}

}  // namespace strobe::check
