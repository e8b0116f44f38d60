// (O, LSE) pairs over disjoint sets of keys become the pair of their union (FlashAttention-2, arXiv 2307.08691, section
// 3.1): part p weighs exp(LSE_p - max) / sum. A few lanes of a warp take a row, each some of its dimensions; with
// many parts, four such groups share a row. Nothing of a part without weight (LSE -inf) is read.
#pragma once

#include "cuda/device/storage.cuh"
#include "cuda/sm80/merge/params.hpp"

namespace strobe::cuda::sm80 {

/// What the weights of a row's parts need: LSE = origin + ln sum. All -inf: both are 0.
struct MergeTotal {
  float origin, sum;

  STROBE_DEVICE float lse() const { return sum == 0.0f ? minus_infinity() : origin + logf(sum); }
  /// Of the sums of weighted parts.
  STROBE_DEVICE float factor() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

/// One row of all parts, in the eyes of a group of 2^lane_bits lanes.
struct MergeRow {
  static constexpr float kNone = -1.0f;  // the weight of a part that has none

  const float* lses;
  const char* parts;
  i64 lse_stride, part_bytes;  // from part to part
  int splits, lanes, lane;
  u32 group;  // its lanes, as bits

  STROBE_DEVICE float lse(int part) const { return part < splits ? lses[part * lse_stride] : minus_infinity(); }
  STROBE_DEVICE float weight(int part, float origin) const {
    const float mine = lse(part);
    return mine == minus_infinity() ? kNone : ptx::ex2((mine - origin) * kLog2E);
  }
};

/// The parts of row i of head h of sequence b.
STROBE_DEVICE MergeRow merge_row_of(const MergeParams& m, int b, int i, int h) {
  const int lanes = 1 << m.lane_bits;
  MergeRow row;
  row.lses = reinterpret_cast<const float*>(m.part_lses.data) + b * m.part_lses.batch_stride +
             h * m.part_lses.head_stride + i * m.part_lses.row_stride;
  const i64 bytes = size_of(m.parts.type);
  row.parts = m.parts.data + (b * m.parts.batch_stride + i * m.parts.row_stride + h * m.parts.head_stride) * bytes;
  row.lse_stride = m.part_lse_stride;
  row.part_bytes = m.part_stride * bytes;
  row.splits = m.splits;
  row.lanes = lanes;
  row.lane = int(threadIdx.x) & (lanes - 1);
  row.group = (lanes == kWarpLanes ? ~0u : (1u << lanes) - 1) << (lane_index() & ~(lanes - 1));
  return row;
}

/// Where the row's outputs go.
STROBE_DEVICE char* merged_row(const MergeParams& m, int b, int i, int h) {
  const i64 place = b * m.output.batch_stride + i * m.output.row_stride + h * m.output.head_stride;
  return m.output.data + place * size_of(m.output.type);
}
STROBE_DEVICE void store_merged_lse(const MergeParams& m, int b, int i, int h, const MergeTotal& total) {
  if (m.lse.data == nullptr) return;
  const i64 place = b * m.lse.batch_stride + h * m.lse.head_stride + i * m.lse.row_stride;
  reinterpret_cast<float*>(m.lse.data)[place] = total.lse();
}

STROBE_DEVICE MergeTotal merge_total(const MergeRow& row) {
  float largest = minus_infinity(), sum = 0.0f;
  for (int part = row.lane; part < row.splits; part += row.lanes) largest = fmaxf(largest, row.lse(part));
  for (int step = row.lanes / 2; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(row.group, largest, step));
  }
  const float origin = largest == minus_infinity() ? 0.0f : largest;
  for (int part = row.lane; part < row.splits; part += row.lanes) sum += ptx::ex2((row.lse(part) - origin) * kLog2E);
  for (int step = row.lanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(row.group, sum, step);
  return {origin, sum};
}

/// Adds up P::kCount dimensions of the parts of kClasses classes from `first_class` on: sums[c] is the sum of
/// weight_p O_p over p = first_class + c + kMergeClasses n, in the order of n. Lanes past the last dimension, not
/// `inside`, only help with the weights. kAhead loads are under way at a time.
template <class P, int kAhead, int kClasses>
STROBE_DEVICE void sum_parts(const MergeRow& row, float origin, int first_class, int first, bool inside,
                             float (&sums)[kClasses][P::kCount]) {
  const char* const parts = row.parts + first * i64(sizeof(typename P::Word));
  // The lanes work out the weights of as many parts as they are; then each is asked for its own.
  for (int begin = 0; begin < row.splits; begin += row.lanes) {
    const float mine = row.weight(begin + row.lane, origin);
    const int count = smaller(row.lanes, row.splits - begin);
#pragma unroll 1
    for (int step = first_class; step < count; step += kMergeClasses / kClasses * kAhead) {
      float weights[kAhead];
      P packs[kAhead];
#pragma unroll
      for (int n = 0; n < kAhead; ++n) {
        const int at = step + n / kClasses * kMergeClasses + n % kClasses;
        weights[n] = __shfl_sync(row.group, mine, at, row.lanes);
        if (at >= count || !inside) weights[n] = MergeRow::kNone;
        packs[n] = {};
        // Not "weight > 0": NaN must come through.
        if (!(weights[n] < 0.0f)) packs[n] = P::load(parts + (begin + at) * row.part_bytes);
      }
#pragma unroll
      for (int n = 0; n < kAhead; ++n) {
        float values[P::kCount];
        packs[n].values(values);
        if (weights[n] < 0.0f) weights[n] = 0.0f;
#pragma unroll
        for (int e = 0; e < P::kCount; ++e) sums[n % kClasses][e] = fmaf(weights[n], values[e], sums[n % kClasses][e]);
      }
    }
  }
}

/// The classes' sums, added in a fixed order; where four groups share the row, the first of them receives it.
template <int kCount, int kClasses>
STROBE_DEVICE void add_classes(const float (&sums)[kClasses][kCount], float (&result)[kCount]) {
  if constexpr (kClasses == kMergeClasses) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) result[e] = (sums[0][e] + sums[1][e]) + (sums[2][e] + sums[3][e]);
  } else {
    __shared__ float shared[kCount][kMergeThreads];
    constexpr int kApart = kMergeThreads / kMergeClasses;  // from a class's thread to the next class's
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kCount; ++e) shared[e][threadIdx.x] = sums[0][e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const float* const mine = &shared[e][threadIdx.x % kApart];
      result[e] = (mine[0] + mine[kApart]) + (mine[2 * kApart] + mine[3 * kApart]);
    }
  }
}

/// Merges row i of head h of sequence b, in the eyes of a group of 2^m.lane_bits lanes that adds up kClasses classes
/// from `first_class` on. A group without `writes` only helps.
template <class P, int kClasses, int kAhead>
STROBE_DEVICE void merge_row(const MergeParams& m, int b, int i, int h, int first_class, bool writes) {
  const MergeRow row = merge_row_of(m, b, i, h);
  const MergeTotal total = merge_total(row);
  if (writes && row.lane == 0) store_merged_lse(m, b, i, h, total);
  const float factor = total.factor();
  char* const to = merged_row(m, b, i, h);
  for (int begin = 0; begin < m.value_dim; begin += row.lanes * P::kCount) {
    const int first = begin + row.lane * P::kCount;
    const bool inside = first < m.value_dim;
    float sums[kClasses][P::kCount] = {}, result[P::kCount];
    sum_parts<P, kAhead>(row, total.origin, first_class, first, inside, sums);
    add_classes<P::kCount, kClasses>(sums, result);
#pragma unroll
    for (int e = 0; e < P::kCount; ++e) result[e] *= factor;
    if (writes && inside) store_floats<P::kCount>(to, m.output.type, first, m.output.vector_bytes == 16, result);
  }
}

template <int kType, int kCount, bool kSpread>
STROBE_DEVICE void merge_rows(const MergeParams& m) {
  constexpr int kClasses = kSpread ? 1 : kMergeClasses, kAhead = 4;
  const int group = int(threadIdx.x) >> m.lane_bits;
  const int groups = kMergeThreads >> m.lane_bits, block_rows = kSpread ? groups / kMergeClasses : groups;
  const int first_class = group / block_rows;

  // Rows are counted heads first. Groups past the last row work on it, too, and write nothing.
  const i64 rows = i64(m.batch) * m.rows * m.heads, mine = i64(blockIdx.x) * block_rows + group % block_rows;
  const i64 index = smaller(mine, rows - 1), token = quotient(index, m.heads);
  const int h = int(index - token * m.heads), b = int(quotient(token, m.rows)), i = int(token - i64(b) * m.rows);
  merge_row<Pack<StorageOf<kType>, kCount>, kClasses, kAhead>(m, b, i, h, first_class, mine < rows && first_class == 0);
}

template <int kType, bool kSpread>
STROBE_DEVICE void merge(const MergeParams& m) {
  if (m.vector > 1) {
    merge_rows<kType, kVectorElements<kType>, kSpread>(m);
  } else {
    merge_rows<kType, 1, kSpread>(m);
  }
}

}  // namespace strobe::cuda::sm80
