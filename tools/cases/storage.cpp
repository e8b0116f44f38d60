// See storage.hpp.
#include "cases/storage.hpp"

#include <algorithm>
#include <utility>

namespace strobe::cases {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kGuard = 128;

std::int64_t span_of(const Tensor& layout) {
  if (layout.elements() == 0) return 0;
  std::int64_t span = 1;
  for (int axis = 0; axis < layout.rank; ++axis) span += (layout.shape[axis] - 1) * layout.strides[axis];
  return span;
}

}  // namespace

Storage::Storage(std::string name, const Tensor& layout, std::int64_t skipped)
    : name_(std::move(name)), tensor_(layout) {
  const std::size_t element = size_of(layout.dtype);
  const auto span = static_cast<std::size_t>(span_of(layout) + skipped);
  bytes_.assign(span * element + 2 * kGuard + kAlignment, kPoison);
  void* first = bytes_.data() + kGuard;
  std::size_t room = bytes_.size() - kGuard;
  std::align(kAlignment, span * element, first, room);
  tensor_.data = static_cast<unsigned char*>(first) + static_cast<std::size_t>(skipped) * element;
}

std::span<unsigned char> Storage::span() {
  return {static_cast<unsigned char*>(tensor_.data),
          static_cast<std::size_t>(span_of(tensor_)) * size_of(tensor_.dtype)};
}

bool Storage::surroundings_intact() const {
  std::vector<unsigned char> is_element(bytes_.size());
  const auto begin = static_cast<std::size_t>(static_cast<unsigned char*>(tensor_.data) - bytes_.data());
  const std::size_t element = size_of(tensor_.dtype);
  Tensor runs = tensor_;  // of elements side by side
  std::size_t run = element;
  if (const int last = runs.rank - 1; last >= 0 && runs.strides[last] == 1) {
    run *= static_cast<std::size_t>(std::exchange(runs.shape[last], 1));
  }
  for_each_element(runs, [&](const std::int64_t*, std::int64_t offset) {
    std::fill_n(is_element.begin() + std::ptrdiff_t(begin + static_cast<std::size_t>(offset) * element), run, 1);
  });
  for (std::size_t at = 0; at < bytes_.size(); ++at) {
    if (is_element[at] == 0 && bytes_[at] != kPoison) return false;
  }
  return true;
}

}  // namespace strobe::cases
