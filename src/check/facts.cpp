// The rules that hold for any tensor, and their messages. Strings are built only when a rule is broken.
#include "check/facts.hpp"

#include <algorithm>
#include <utility>

#include "check/overlap.hpp"

namespace strobe::check {
namespace {

std::string describe_shape(std::initializer_list<Axis> axes) {
  std::string text = "[";
  for (const Axis& axis : axes) {
    if (text.size() > 1) text += ", ";
    text += axis.name;
    if (*axis.name != '\0' && axis.size != Axis::kAnySize) text += " ";
    if (axis.size != Axis::kAnySize) text += std::to_string(axis.size);
    if (axis.rule == Axis::Rule::kEqualOrOne && axis.size != 1) text += " or 1";
    if (axis.rule == Axis::Rule::kAtLeastOne) text += " of at least 1";
  }
  return text + "]";
}

std::string describe_types(Types types) {
  std::string text;
  for (int value = 0; value <= int(DataType::kBool); ++value) {
    if (!contains(types.set, DataType(value))) continue;
    if (!text.empty()) text += " or ";
    text += name_of(DataType(value));
  }
  if (*types.reason != '\0') text += std::string(", ") + types.reason;
  return text;
}

std::string describe_strides(const Tensor& tensor) {
  std::string text = "[";
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(tensor.strides[axis]);
  }
  return text + "]";
}

bool fits(const Axis& axis, std::int64_t size) {
  switch (axis.rule) {
    case Axis::Rule::kEqual:
      return size == axis.size;
    case Axis::Rule::kEqualOrOne:
      return size == axis.size || size == 1;
    case Axis::Rule::kAtLeastOne:
      return size >= 1;
    case Axis::Rule::kAny:
      break;
  }
  return true;
}

}  // namespace

std::string describe(const Tensor& tensor) {
  if (!tensor.given()) return "not given";
  std::string text = std::string(name_of(tensor.dtype)) + " [";
  for (int axis = 0; axis < std::min(tensor.rank, kMaxRank); ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(tensor.shape[axis]);
  }
  if (tensor.rank > kMaxRank) text += ", ...";
  return text + "]";
}

void refuse(const char* argument, std::string was, std::string must_be, ErrorCode code) {
  throw Error(code, argument, std::move(was), std::move(must_be));
}

void refuse(const char* argument, const Tensor& tensor, std::string must_be, ErrorCode code) {
  refuse(argument, describe(tensor), std::move(must_be), code);
}

void expect_shape(const char* argument, const Tensor& tensor, std::initializer_list<Axis> axes) {
  bool right = tensor.rank == std::int32_t(axes.size());
  for (int axis = 0; right && axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] < 0) refuse(argument, tensor, "a shape without negative sizes");
    if (tensor.shape[axis] > kMaxAxis) refuse(argument, tensor, "of at most 2147483647 entries along an axis");
    right = fits(axes.begin()[axis], tensor.shape[axis]);
  }
  if (!right) refuse(argument, tensor, describe_shape(axes));
}

void expect_type(const char* argument, const Tensor& tensor, Types types) {
  if (!contains(types.set, tensor.dtype)) refuse(argument, tensor, describe_types(types));
}

void expect_layout(const char* argument, const Tensor& tensor, Innermost innermost) {
  const int last = tensor.rank - 1;
  if (tensor.shape[last] > 1 && innermost != Innermost::kAny && tensor.strides[last] != 1 &&
      !(innermost == Innermost::kOneOrZero && tensor.strides[last] == 0)) {
    refuse(argument, describe(tensor) + " with strides " + describe_strides(tensor),
           innermost == Innermost::kOne ? "of innermost stride 1" : "of innermost stride 1 or 0");
  }
  std::uint64_t left = std::uint64_t(kMaxBytes) / size_of(tensor.dtype);
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const std::int64_t stride = tensor.strides[axis];
    const std::uint64_t length = stride < 0 ? 0 - std::uint64_t(stride) : std::uint64_t(stride);
    const std::uint64_t steps = std::uint64_t(std::max<std::int64_t>(tensor.shape[axis] - 1, 0));
    std::uint64_t reach = 0;
    // A stride that is never taken may be anything that still multiplies safely.
    const bool spans = steps == 0 ? length <= std::uint64_t(kMaxElements)
                                  : !__builtin_mul_overflow(steps, length, &reach) && reach <= left;
    if (!spans) {
      refuse(argument, describe(tensor) + " with strides " + describe_strides(tensor), "strides that span memory");
    }
    left -= reach;
  }
}

bool product_is_at_most(std::int64_t limit, std::span<const std::int64_t> sizes) {
  std::int64_t product = 1;
  for (std::int64_t size : sizes) {
    if (size > 1 && __builtin_mul_overflow(product, size, &product)) return false;
  }
  return product <= limit;
}

void expect_countable(const char* argument, const Tensor& tensor) {
  if (!product_is_at_most(kMaxElements, {tensor.shape, std::size_t(tensor.rank)})) {
    refuse(argument, tensor, "of at most 2^44 elements");
  }
}

void expect_distinct_elements(const char* argument, const Tensor& tensor) {
  if (!elements_are_distinct(tensor)) {
    refuse(argument, describe(tensor) + " with strides " + describe_strides(tensor),
           "laid out so that no two elements share memory");
  }
}

void expect_memory(const char* argument, const Tensor& tensor, Data data) {
  if (data == Data::kIgnored || is_empty(tensor)) return;
  if (tensor.data == nullptr) refuse(argument, "null with " + describe(tensor), "a pointer to the data");
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % size_of(tensor.dtype) != 0) {
    refuse(argument, "a misaligned pointer", std::string("aligned to its elements, ") + name_of(tensor.dtype));
  }
}

void expect_input(const char* argument, const Tensor& tensor, Types types, std::initializer_list<Axis> axes, Data data,
                  Innermost innermost) {
  expect_shape(argument, tensor, axes);
  expect_type(argument, tensor, types);
  expect_layout(argument, tensor, innermost);
  expect_memory(argument, tensor, data);
}

void expect_output(const char* argument, const Tensor& tensor, Types types, std::initializer_list<Axis> axes,
                   Data data) {
  expect_input(argument, tensor, types, axes, data);
  expect_distinct_elements(argument, tensor);
}

}  // namespace strobe::check
