// Tensor maps: what the copy engine of sm_90 and later must know of a tensor. The driver takes a quarter of a
// microsecond for one, and a call needs four; but tensors lie where others lay before, so each thread keeps its last
// maps.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "cuda/host/driver.hpp"
#include "cuda/host/recent.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda {
namespace {

// Values of cuda.h's CUtensorMapDataType, CUtensorMapSwizzle and CUtensorMapL2promotion.
constexpr int kFloat16Map = 6, kBFloat16Map = 9, kSwizzle128 = 3, kPromote256 = 3;
constexpr int kElementBytes = 2, kBoxDims = 64;
/// Maps that a thread keeps: those of a network's layers.
constexpr std::size_t kKept = 128;

/// Everything that a map says.
struct Described {
  void* data;
  int type;
  unsigned box_rows, box_heads;
  unsigned long long sizes[4], strides[3];  // elements; bytes
  bool operator==(const Described&) const = default;

  std::size_t hash() const {
    std::uint64_t state = reinterpret_cast<std::uintptr_t>(data) / 16 + box_rows + 256 * box_heads;
    for (unsigned long long size : sizes) state = (state ^ size) * 0x9E3779B97F4A7C15u;
    return std::size_t(state >> 32);
  }
};

TensorMap encoded(const Described& tensor) {
  alignas(64) TensorMap map{};
  const unsigned box[] = {kBoxDims, tensor.box_rows, tensor.box_heads, 1}, steps[] = {1, 1, 1, 1};
  require(driver().encode_tensor_map(&map, tensor.type, 4, tensor.data, tensor.sizes, tensor.strides, box, steps, 0,
                                     kSwizzle128, kPromote256, 0),
          "describing a tensor to the GPU");
  return map;
}

}  // namespace

TensorMap tensor_map_of(const RowsView& view, const TensorExtents& extents) {
  if (std::min({extents.dims, extents.rows, extents.heads, extents.batches}) <= 0) return {};
  using Size = unsigned long long;
  // Where there is one of something, its stride means nothing, and may be anything.
  const auto stride = [](long long elements, long long count) {
    return Size(count > 1 ? elements * kElementBytes : kBoxDims * kElementBytes);
  };
  const Described tensor{.data = view.data,
                         .type = view.type == Element::kFloat16 ? kFloat16Map : kBFloat16Map,
                         .box_rows = unsigned(extents.box_rows),
                         .box_heads = unsigned(extents.box_heads),
                         .sizes = {Size(extents.dims), Size(extents.rows), Size(extents.heads), Size(extents.batches)},
                         .strides = {stride(view.row_stride, extents.rows), stride(view.head_stride, extents.heads),
                                     stride(view.batch_stride, extents.batches)}};
  // Too large for a place in every thread of every program.
  thread_local std::unique_ptr<Recent<Described, TensorMap, kKept>> recent;
  if (recent == nullptr) recent = std::make_unique<Recent<Described, TensorMap, kKept>>();
  return recent->get(tensor, [&] { return encoded(tensor); });
}

TensorMap heads_first_map_of(RowsView view, TensorExtents extents) {
  std::swap(view.row_stride, view.head_stride);
  std::swap(extents.rows, extents.heads);
  std::swap(extents.box_rows, extents.box_heads);
  return tensor_map_of(view, extents);
}

}  // namespace strobe::cuda
