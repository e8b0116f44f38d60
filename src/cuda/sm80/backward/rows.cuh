// Writing gradients: rows of any alignment, in 16-bit elements or float32.
#pragma once

#include "cuda/device/sequence.cuh"

namespace strobe::cuda::sm80 {

/// Elements d and d + 1 (even d) of a row, as far as they are below `dims`.
template <class Element>
STROBE_DEVICE void store_pair(const RowsView& view, char* row, int d, int dims, float low, float high) {
  const bool both = d + 1 < dims;
  if (view.type == cuda::Element::kFloat32) {
    float* const to = reinterpret_cast<float*>(row) + d;
    if (d < dims) to[0] = low;
    if (both) to[1] = high;
    return;
  }
  const u32 pair = Element::pack(low, high);
  u16* const to = reinterpret_cast<u16*>(row) + d;
  if (both && view.vector_bytes >= 4) {
    *reinterpret_cast<u32*>(to) = pair;
  } else {
    if (d < dims) to[0] = u16(pair);
    if (both) to[1] = u16(pair >> 16);
  }
}

/// Rows of one KV head of a sequence's key gradients.
STROBE_DEVICE RowAddress grad_key_rows(const AttentionParams& p, const RowsView& view, const Sequence& s, int kv_head) {
  const i64 first = s.first_key * view.row_stride + kv_head * view.head_stride;
  const i64 batch = p.packed_keys ? 0 : s.batch * view.batch_stride;
  return {view.data + (batch + first) * size_of(view.type), view.row_stride * size_of(view.type)};
}

/// Zeroes rows [first, last). The whole block takes part.
STROBE_DEVICE void zero_rows(const RowsView& view, const RowAddress& address, int dims, int first, int last) {
  for (int row = first; row < last; ++row) {
    char* const to = const_cast<char*>(address(row));
    for (int d = int(threadIdx.x); d < dims; d += int(blockDim.x)) store_float(to, view.type, d, 0.0f);
  }
}

}  // namespace strobe::cuda::sm80
