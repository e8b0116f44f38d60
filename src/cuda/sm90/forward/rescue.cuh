// Values that are infinite or NaN. A matrix product cannot leave out a key that one row sees and another does not: a
// weight of zero times NaN is NaN. So a row whose result is not finite is worked out once more, key by key, from
// memory. Data without such values never comes here; speed does not matter.
#pragma once

#include "cuda/sm90/forward/epilogue.cuh"

namespace strobe::cuda::sm90 {

/// A warp's rows that hold something infinite or NaN, as bits.
template <class C>
STROBE_DEVICE u32 rows_not_finite(const typename C::Outputs& o) {
  u32 rows = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sums[4] = {};  // zero, unless something is infinite or NaN
#pragma unroll
    for (int n = 0; n < C::kValueTiles; ++n) {
      float& sum = sums[n % 4];
      sum = fmaf(o[n / 8][n % 8][2 * half], 0.0f, sum);
      sum = fmaf(o[n / 8][n % 8][2 * half + 1], 0.0f, sum);
    }
    const u32 lanes = __ballot_sync(~0u, !((sums[0] + sums[1]) + (sums[2] + sums[3]) == 0.0f));
#pragma unroll
    for (int row = 0; row < 8; ++row) rows |= (lanes >> 4 * row & 15u) != 0 ? 1u << (8 * half + row) : 0u;
  }
  return rows;
}

/// The score of one key, in natural units.
template <class C>
STROBE_DEVICE float score_of(const AttentionParams& p, const ScoreRow& row, const char* query, const char* key, int j) {
  float product = 0.0f;
  for (int d = lane_index(); d < p.head_dim; d += kWarpLanes) {
    product = fmaf(load_float(query, p.query.type, d), load_float(key, p.key.type, d), product);
  }
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) product += __shfl_xor_sync(~0u, product, step);
  if constexpr (!C::kEdits) return p.scale * product;
  float capped;
  return edited_score<typename C::Element, C::kCommonFeatures>(p, row, j, j, product, &capped);
}

/// The smallest range of keys around those that are visible and a prefix.
STROBE_DEVICE KeyRange around(KeyRange visible, int prefix) {
  return prefix > 0 ? KeyRange{0, larger(visible.last, prefix)} : visible;
}
/// Whether the row sees a key of that range.
template <class C>
STROBE_DEVICE bool shows(const AttentionParams& p, const Sequence& s, const ScoreRow& row, int j) {
  if constexpr (!C::kSurveys && !C::kHidesByData) return true;
  return sees(row.visible, smaller(s.prefix, s.keys), j) && data_shows<C::kCommonFeatures>(p, s, row, j);
}

/// O of query i of the `head`-th head of a task, by a warp, to where the row is staged, or to memory if `stage` is 0.
/// LSE is right already: values take no part in it.
template <class C>
STROBE_DEVICE void rescue_row(const AttentionParams& p, const Task<C>& task, int i, int head, u32 stage, int row) {
  const Sequence& s = task.s;
  KeyRange visible = visible_keys(p, s, i);
  ScoreRow scored;
  if constexpr (C::kFeatures != 0) scored = score_row<C::kCommonFeatures>(p, s, task.head + head, i);
  const KeyAddress keys = key_rows(p, p.key, s, task.kv_head), values = key_rows(p, p.value, s, task.kv_head);
  const char* const query = query_rows(p, p.query, s, task.head + head)(i);
  char* const to = const_cast<char*>(query_rows(p, p.output, outputs_of(task), task.head + head)(i));
  const int first_key = p.packed_keys ? 0 : s.first_key;  // which key_rows knows of packed ones only
  if constexpr (C::kSurveys) visible = around(visible, smaller(s.prefix, s.keys));
  float origin = minus_infinity(), sum = 0.0f, outputs[C::kDim / kWarpLanes] = {};
  for (int j = visible.first; j < visible.last; ++j) {
    if (!shows<C>(p, s, scored, j)) continue;
    origin = fmaxf(origin, score_of<C>(p, scored, query, keys(first_key + j), j));
  }
  float shift = origin;
  if constexpr (C::kEdits) shift = origin == minus_infinity() ? 0.0f : origin;  // a bias may be -inf
  for (int j = visible.first; j < visible.last; ++j) {
    if (!shows<C>(p, s, scored, j)) continue;
    const float weight = ptx::ex2((score_of<C>(p, scored, query, keys(first_key + j), j) - shift) * kLog2E);
    sum += weight;
#pragma unroll
    for (int n = 0; n < C::kDim / kWarpLanes; ++n) {
      const int d = lane_index() + n * kWarpLanes;
      if (d >= p.value_dim) continue;
      const float value = load_float(values(first_key + j), p.value.type, d);
      outputs[n] += is_finite(value) ? weight * value : value;
    }
  }
  const RowEnd result = end_of_row(origin, sum, sink_of(p, task.head + head));
#pragma unroll
  for (int n = 0; n < C::kDim / kWarpLanes; ++n) {
    const int d = lane_index() + n * kWarpLanes;
    const float value = outputs[n] * result.factor;
    if (stage != 0) {
      ptx::st_shared_2(staged_chunk(stage, row, d / 8) + d % 8 * 2, u16(C::Element::pack(value, 0.0f)));
    } else if (d < p.value_dim) {
      store_float(to, p.output.type, d, value);
    }
  }
}

/// The rows of a warp, given as bits.
template <class C>
__device__ __noinline__ void rescue_rows(const ForwardParams& f, const Task<C>& task, int number, u32 rows, u32 stage) {
  const ConsumerRows& mine = task.rows[number];
  __syncwarp();
  for (int n = 0; n < 16; ++n) {
    const int row = warp_index() % 4 * 16 + n;
    const TileRow own = tile_row<C>(f, row);
    const int i = mine.first_row + own.query;
    if ((rows >> n & 1) != 0 && i < mine.last_row) rescue_row<C>(f.attention, task, i, own.head, stage, row);
  }
  __syncwarp();
}

}  // namespace strobe::cuda::sm90
