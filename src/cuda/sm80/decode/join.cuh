// What the last block of a row group does: the splits' parts become the result, by the merge kernel's additions in the
// merge kernel's order, so with its bits. This runs once a launch, on code that no cache holds yet, and every
// instruction of it is waited for. So the parts come to shared memory by one short loop of copies; as many loads under
// way in registers would have to be unrolled.
#pragma once

#include "cuda/sm80/decode/config.cuh"
#include "cuda/sm80/merge/kernel.cuh"

namespace strobe::cuda::sm80 {

/// Writes elements [dim, dim + 4) of a row of `dims`.
STROBE_DEVICE void store_quad(char* row, const RowsView& view, int dims, int dim, const float (&x)[4]) {
  if (view.vector_bytes == kChunkBytes) return store_floats<4>(row, view.type, dim, true, x);
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    if (dim + e < dims) store_float(row, view.type, dim + e, x[e]);
  }
}

/// Rows of parts are as the workspace has them: float32, whole quads. A thread adds up a quad of a row at a time, and
/// brings what it needs for that itself.
template <class C>
struct Join {
  static constexpr int kQuads = C::kValueDim / 4;
  static constexpr int kFactorsAt = kDecodeRows * kMostJoinedSplits * 4, kSlotsAt = kFactorsAt + kDecodeRows * 4;
  static constexpr int kSlots =
      (C::kSharedBytes - kSlotsAt) / (C::kThreads * kChunkBytes) / kMergeClasses * kMergeClasses;
  static_assert(kSlots > 0);

  const DecodeParams& d;
  int b, kv_head, first_row, rows;
  u32 memory;

  STROBE_DEVICE int query_of(int r) const { return d.row(first_row + r).query; }
  STROBE_DEVICE int head_of(int r) const { return kv_head * d.attention.group + d.row(first_row + r).head_of_group; }
  STROBE_DEVICE MergeRow parts_of(int r) const { return merge_row_of(d.merge, b, query_of(r), head_of(r)); }
  STROBE_DEVICE u32 weight_at(int r, int part) const { return memory + (r * kMostJoinedSplits + part) * 4; }
  STROBE_DEVICE u32 factor_at(int r) const { return memory + kFactorsAt + r * 4; }
  STROBE_DEVICE u32 slot(int n) const { return memory + kSlotsAt + (n * C::kThreads + int(threadIdx.x)) * kChunkBytes; }

  /// Asks for the thread's quad `item` of parts [begin, begin + kSlots).
  STROBE_DEVICE void fetch(int item, int begin) const {
    if (item >= rows * kQuads) return;
    const MergeRow row = parts_of(item / kQuads);
    const int dim = item % kQuads * 4, count = smaller(row.splits - begin, kSlots);
    const char* from = row.parts + dim * i64(sizeof(float)) + begin * row.part_bytes;
    if (dim >= d.merge.value_dim) return;
#pragma unroll 1
    for (int n = 0; n < count; ++n, from += row.part_bytes) ptx::cp_async_16(slot(n), from, true);
    ptx::cp_async_commit();
  }

  /// The weights of all rows' parts and what their sums are multiplied by, to shared memory; LSE.
  STROBE_DEVICE void weigh() const {
    const int lanes = 1 << d.merge.lane_bits;
#pragma unroll 1
    for (int r = int(threadIdx.x) >> d.merge.lane_bits; r < rows; r += C::kThreads >> d.merge.lane_bits) {
      const MergeRow row = parts_of(r);
      const MergeTotal total = merge_total(row);
#pragma unroll 1
      for (int part = row.lane; part < ceil_div(row.splits, kMergeClasses) * kMergeClasses; part += lanes) {
        ptx::st_shared_4(weight_at(r, part), u32(__float_as_int(row.weight(part, total.origin))));
      }
      if (row.lane != 0) continue;
      ptx::st_shared_4(factor_at(r), u32(__float_as_int(total.factor())));
      store_merged_lse(d.merge, b, query_of(r), head_of(r), total);
    }
  }

  /// Adds up what fetch(item, begin) brought. Of a part without weight nothing is looked at.
  STROBE_DEVICE void add(int r, int begin, float (&sums)[kMergeClasses][4]) const {
    const int count = smaller(d.merge.splits - begin, kSlots);
#pragma unroll 1
    for (int first = 0; first < count; first += kMergeClasses) {
      const uint4 weights = ptx::ld_shared_16(weight_at(r, begin + first));
      const u32 weight_words[kMergeClasses] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
      for (int c = 0; c < kMergeClasses; ++c) {
        const float weight = __int_as_float(int(weight_words[c]));
        if (weight < 0.0f) continue;  // not "!(weight >= 0)": NaN must come through
        const uint4 values = ptx::ld_shared_16(slot(first + c));
        sums[c][0] = fmaf(weight, __int_as_float(int(values.x)), sums[c][0]);
        sums[c][1] = fmaf(weight, __int_as_float(int(values.y)), sums[c][1]);
        sums[c][2] = fmaf(weight, __int_as_float(int(values.z)), sums[c][2]);
        sums[c][3] = fmaf(weight, __int_as_float(int(values.w)), sums[c][3]);
      }
    }
  }

  STROBE_DEVICE void run() const {
    fetch(int(threadIdx.x), 0);
    weigh();
    __syncthreads();
#pragma unroll 1
    for (int item = int(threadIdx.x); item < rows * kQuads; item += C::kThreads) {
      const int r = item / kQuads, dim = item % kQuads * 4;
      if (dim >= d.merge.value_dim) continue;
      float sums[kMergeClasses][4] = {}, result[4];
#pragma unroll 1
      for (int begin = 0; begin < d.merge.splits; begin += kSlots) {
        if (item != int(threadIdx.x) || begin > 0) fetch(item, begin);
        ptx::cp_async_wait<0>();
        add(r, begin, sums);
      }
      add_classes<4, kMergeClasses>(sums, result);
      const float factor = __int_as_float(int(ptx::ld_shared_4(factor_at(r))));
#pragma unroll
      for (int e = 0; e < 4; ++e) result[e] *= factor;
      store_quad(merged_row(d.merge, b, query_of(r), head_of(r)), d.merge.output, d.merge.value_dim, dim, result);
    }
  }
};

}  // namespace strobe::cuda::sm80
