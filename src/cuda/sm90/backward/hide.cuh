// Which scores of a query tile are hidden from a warpgroup's keys, by position and by data, as bits; and keys that data
// hide from everyone.
#pragma once

#include "cuda/sm80/backward/unseen.cuh"
#include "cuda/sm90/backward/edits.cuh"

namespace strobe::cuda::sm90 {

constexpr int kWarpKeys = 16;

/// Which of 16 bytes are not zero, as bits.
STROBE_DEVICE u32 set_bytes(const uint4& bytes) {
  const u32 words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
  u32 bits = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const u32 low = words[n] & 0x7f7f7f7fu, set = ((low + 0x7f7f7f7fu) | words[n]) >> 7 & 0x01010101u;
    bits |= set * 0x10204080u >> 28 << (4 * n);  // bits 0, 8, 16, 24 side by side
  }
  return bits;
}

/// What a boolean mask shows query i of keys [first_key, first_key + kWarpKeys), as bits; 16 bytes where rows lie so.
STROBE_DEVICE u32 keys_shown_by_mask(const AttentionParams& p, const Sequence& s, int head, int i, int first_key) {
  const char* const row =
      p.mask.data + s.batch * p.mask.batch_stride + head * p.mask.head_stride + i * p.mask.row_stride;
  u32 shown = 0;
  if (p.mask.in_chunks) {
    shown = set_bytes(ptx::ld_global_nc_16(row + smaller(first_key, p.key_length - kWarpKeys)));
  } else {
#pragma unroll 4
    for (int n = 0; n < kWarpKeys; ++n) {
      shown |= u32(row[smaller(first_key + n, s.keys - 1) * p.mask.column_stride] != 0) << n;
    }
  }
  return shown;
}

/// What data show query i of a head of keys [first_key, first_key + kWarpKeys), as bits.
template <class C>
STROBE_DEVICE u32 keys_shown(const AttentionParams& p, const Sequence& s, int head, int i, int first_key) {
  constexpr int kFeatures = C::kCommonFeatures;
  u32 shown = ~0u;
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (asked_for<kFeatures>(p.query_documents.data != nullptr)) {
      const Documents of_keys = key_documents(p, s);
      const int own = query_documents(p, s)(i);
#pragma unroll 4
      for (int n = 0; n < kWarpKeys; ++n) {
        if (of_keys(smaller(first_key + n, s.keys - 1)) != own) shown &= ~(1u << n);
      }
    }
  }
  if constexpr ((kFeatures & kMask) != 0) {
    if (asked_for<kFeatures>(p.mask.data != nullptr)) shown &= keys_shown_by_mask(p, s, head, i, first_key);
  }
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (asked_for<kFeatures>(p.block_mask.data != nullptr)) {
      const char* const row = p.block_mask.data + s.batch * p.block_mask.batch_stride +
                              head * p.block_mask.head_stride + i / p.block_rows * p.block_mask.row_stride;
#pragma unroll 1
      for (int n = 0; n < kWarpKeys; ++n) {
        const int column = smaller(first_key + n, s.keys - 1) / p.block_columns;
        if (row[column * p.block_mask.column_stride] == 0) shown &= ~(1u << n);
      }
    }
  }
  return shown;
}

/// A thread's hidden scores: bit 4 t + e for s[t][e].
template <class C>
struct HiddenScores {
  static constexpr int kBits = 4 * C::kScoreTiles;
  u32 words[(kBits + 31) / 32] = {};

  STROBE_DEVICE void find(const AttentionParams& p, const BackwardItem& item, const BackwardOptionVisit& visit,
                          const ScorePlace& place, const StagedRows<C>& staged) {
    find_by_position(item, visit, place);
    if constexpr (C::kHidesByData) {
      if (!visit.whole) find_by_data(p, item.s, visit, place, staged);
    }
  }

  /// Zeroes what is hidden.
  STROBE_DEVICE void clear(typename C::Scores& x) const {
#pragma unroll
    for (int n = 0; n < kBits; ++n) {
      if ((words[n / 32] >> n % 32 & 1) != 0) x[n / 4][n % 4] = 0.0f;
    }
  }

 private:
  STROBE_DEVICE void find_by_position(const BackwardItem& item, const BackwardOptionVisit& visit,
                                      const ScorePlace& place) {
    const int rows = visit.first_row + visit.rows - place.query;  // columns from there on are no queries
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = place.key + 8 * half, near = key - place.query;
      const int from = near - item.highest, to = near - item.lowest + 1;
      const int end = key < item.s.keys ? rows : 0;
      const bool open = C::kHasPrefix && key < item.s.prefix;
#pragma unroll
      for (int n = 0; n < 2 * C::kScoreTiles; ++n) {
        const int column = n / 2 * 8 + n % 2, bit = n / 2 * 4 + 2 * half + n % 2;
        const bool hidden = ((column < from || column >= to) && !open) || column >= end;
        words[bit / 32] |= u32(hidden) << bit % 32;
      }
    }
  }

  /// Each lane looks up the warp's keys for one query in 32, and tells the others.
  STROBE_DEVICE void find_by_data(const AttentionParams& p, const Sequence& s, const BackwardOptionVisit& visit,
                                  const ScorePlace& place, const StagedRows<C>& staged) {
    constexpr int kLoads = C::kScoreQueries / kWarpLanes;
    const int lane = lane_index();
    u32 shown[kLoads];
    if (C::kFeatures == kMask && StagedRows<C>::given(p)) {
      staged.wait();
#pragma unroll
      for (int n = 0; n < kLoads; ++n) shown[n] = set_bytes(ptx::ld_shared_16(staged.chunk(n * kWarpLanes + lane, 0)));
    } else {
#pragma unroll
      for (int n = 0; n < kLoads; ++n) {
        const int i = smaller(place.warp_query + n * kWarpLanes + lane, s.queries - 1);
        shown[n] = keys_shown<C>(p, s, visit.head, i, place.warp_key);
      }
    }
#pragma unroll
    for (int n = 0; n < 2 * C::kScoreTiles; ++n) {
      const u32 keys = __shfl_sync(~0u, shown[n / 8], n / 2 % 4 * 8 + lane % 4 * 2 + n % 2) >> lane / 4;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int bit = n / 2 * 4 + 2 * half + n % 2;
        words[bit / 32] |= u32((keys >> 8 * half & 1) == 0) << bit % 32;
      }
    }
  }
};

/// What sm80::key_is_seen wants to know.
template <class C>
struct CommonOptions {
  static constexpr int kFeatures = C::kCommonFeatures;
};

/// Clears keys of a thread block, in shared memory, that are not finite and that nobody sees: a weight of zero would
/// not silence them. Each of the consumers' warps looks at some.
template <class C, int kPanels = C::kPanels>
STROBE_DEVICE void clear_unseen_keys(const AttentionParams& p, const BackwardItem& item, int first_key, int warp,
                                     u32 keys) {
  constexpr int kRows = C::kOwnKeys / (4 * C::kConsumers), kChunks = kPanels * 8;
  const auto chunk_at = [&](int n) {
    const int row = warp * kRows + n / kChunks, chunk = n % kChunks;
    return keys + chunk / 8 * C::kKeyPanelBytes + row * kPanelRowBytes + chunk % 8 * kChunkBytes;
  };
  bool finite = true;
#pragma unroll 4
  for (int n = lane_index(); n < kRows * kChunks; n += kWarpLanes) {
    const uint4 value = ptx::ld_shared_16(chunk_at(n));
    const u32 words[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
    for (const u32 word : words) finite &= finite_elements<typename C::Element>(word) == word;
  }
  if (__all_sync(~0u, finite)) return;
#pragma unroll 1
  for (int row = 0; row < kRows; ++row) {
    const int key = first_key + warp * kRows + row;
    if (key >= item.s.keys || sm80::key_is_seen<CommonOptions<C>>(p, item.s, item.kv_head, key)) continue;
    for (int n = lane_index(); n < kChunks; n += kWarpLanes) {
      ptx::st_shared_16(chunk_at(row * kChunks + n), make_uint4(0, 0, 0, 0));
    }
  }
  ptx::fence_proxy_async();
}

}  // namespace strobe::cuda::sm90
