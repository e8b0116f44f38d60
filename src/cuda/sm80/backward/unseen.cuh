// Keys that no query sees, and queries that see no key, may hold anything, NaN too, and must not reach a gradient: a
// weight of zero would not stop them. What position alone hides is never loaded; the rest is looked for here, and
// cleared. Data without infinities and NaN in such places costs one look at the keys.
#pragma once

#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

template <class C, class T>
STROBE_DEVICE bool row_is_finite(u32 tile, int row) {
  bool finite = true;
  for (int chunk = lane_index(); chunk < T::kRowChunks; chunk += kWarpLanes) {
    const uint4 value = ptx::ld_shared_16(tile + T::offset(row, chunk));
    const u32 words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (const u32 word : words) finite &= finite_elements<typename C::Element>(word) == word;
  }
  return __all_sync(~0u, finite);
}

/// Zeroes a row of a tile. The whole warp takes part.
template <class T>
STROBE_DEVICE void clear_row(u32 tile, int row) {
  for (int chunk = lane_index(); chunk < T::kRowChunks; chunk += kWarpLanes) {
    ptx::st_shared_16(tile + T::offset(row, chunk), make_uint4(0, 0, 0, 0));
  }
}

/// Whether any query of the group's heads sees key j. The whole warp takes part.
template <class C>
STROBE_DEVICE bool key_is_seen(const AttentionParams& p, const Sequence& s, int kv_head, int j) {
  for (int head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for (int first = 0; first < s.queries; first += kWarpLanes) {
      const int i = first + lane_index();
      const ScoreRow row = score_row<C::kFeatures>(p, s, head, i);
      const bool seen = i < s.queries && sees(row.visible, s.prefix, j) && data_shows<C::kFeatures>(p, s, row, j);
      if (__any_sync(~0u, seen)) return true;
    }
  }
  return false;
}

/// Clears keys of the block that are not finite and that nobody sees.
template <class C>
__device__ __noinline__ void clear_unseen_keys(const AttentionParams& p, Sequence s, int kv_head, int first_key,
                                               u32 keys, u32 values) {
  for (int row = warp_index(); row < C::kKeyBlock && first_key + row < s.keys; row += C::kThreads / kWarpLanes) {
    if (row_is_finite<C, typename C::KeyTile>(keys, row) && row_is_finite<C, typename C::ValueTile>(values, row))
      continue;
    if (key_is_seen<C>(p, s, kv_head, first_key + row)) continue;
    clear_row<typename C::KeyTile>(keys, row);
    clear_row<typename C::ValueTile>(values, row);
  }
}

/// Clears queries of the tile that see nothing, whose LSE is +inf, and what comes down to them.
template <class C>
__device__ __noinline__ void clear_blind_queries(u32 lse, u32 queries, u32 grad_outputs) {
  for (int row = warp_index(); row < C::kQueryTile; row += C::kThreads / kWarpLanes) {
    if (ptx::ld_shared_4(lse + row * 4) != 0x7f800000u) continue;  // +inf
    clear_row<typename C::QueryTile>(queries, row);
    clear_row<typename C::GradOutputTile>(grad_outputs, row);
  }
}

}  // namespace strobe::cuda::sm80
