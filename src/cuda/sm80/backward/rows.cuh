// Writing gradients: rows of any alignment, in 16-bit elements or float32.
#pragma once

#include "cuda/device/sequence.cuh"

namespace strobe::cuda::sm80 {

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
