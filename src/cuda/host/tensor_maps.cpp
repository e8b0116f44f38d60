// Tensor maps: what the copy engine of sm_90 and later must know of a tensor.
#include <algorithm>

#include "cuda/host/driver.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda {
namespace {

// Values of cuda.h's CUtensorMapDataType, CUtensorMapSwizzle and CUtensorMapL2promotion.
constexpr int kFloat16Map = 6, kBFloat16Map = 9, kSwizzle128 = 3, kPromote256 = 3;
constexpr int kElementBytes = 2, kBoxDims = 64;

}  // namespace

TensorMap tensor_map_of(const RowsView& view, const TensorExtents& extents) {
  alignas(64) TensorMap map{};
  if (std::min({extents.dims, extents.rows, extents.heads, extents.batches}) <= 0) return map;
  const unsigned long long sizes[] = {(unsigned long long)extents.dims, (unsigned long long)extents.rows,
                                      (unsigned long long)extents.heads, (unsigned long long)extents.batches};
  // Where there is one of something, its stride means nothing, and may be anything.
  const auto stride = [](long long elements, long long count) {
    return (unsigned long long)(count > 1 ? elements * kElementBytes : kBoxDims * kElementBytes);
  };
  const unsigned long long strides[] = {stride(view.row_stride, extents.rows), stride(view.head_stride, extents.heads),
                                        stride(view.batch_stride, extents.batches)};
  const unsigned box[] = {kBoxDims, unsigned(extents.box_rows), 1, 1}, steps[] = {1, 1, 1, 1};
  const int type = view.type == Element::kFloat16 ? kFloat16Map : kBFloat16Map;
  require(
      driver().encode_tensor_map(&map, type, 4, view.data, sizes, strides, box, steps, 0, kSwizzle128, kPromote256, 0),
      "describing a tensor to the GPU");
  return map;
}

}  // namespace strobe::cuda
