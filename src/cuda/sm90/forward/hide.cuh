// Keys that some rows of a consumer do not see: whether there are any in a block, and -inf for their scores.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

/// What a boolean mask shows of a block to a warp's 16 rows. kRowLanes lanes together hold a row's bytes, four keys a
/// lane. They are asked for a block ahead where the registers allow.
template <class C, bool = (C::kFeatures & kMask) != 0>
struct BlockMask {};
template <class C>
struct BlockMask<C, true> {
  static constexpr bool kAhead = C::kDim > 64 && C::kFeatures == kMask;
  static constexpr int kRowLanes = C::kKeyBlock / 4, kRowsAtOnce = kWarpLanes / kRowLanes, kWords = 16 / kRowsAtOnce;
  static constexpr int kWordsAtOnce = kAhead ? kWords : 4;
  u32 words[kWordsAtOnce];

  /// Words from number `start` on.
  STROBE_DEVICE void load(const AttentionParams& p, const Task<C>& task, int warp_row, int block, int start = 0) {
    const char* const data = p.mask.data + task.s.batch * p.mask.batch_stride + task.head * p.mask.head_stride;
    const int row = warp_row + start * kRowsAtOnce + lane_index() / kRowLanes, last_row = task.s.queries - 1;
    const int key = block * C::kKeyBlock + lane_index() % kRowLanes * 4;
    if (p.mask.in_chunks) {
      const char* const from = data + smaller(key, p.key_length - 4);
#pragma unroll
      for (int n = 0; n < kWordsAtOnce; ++n) {
        words[n] = ptx::ld_global_nc_u32(from + smaller(row + n * kRowsAtOnce, last_row) * p.mask.row_stride);
      }
      return;
    }
    i64 places[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) places[e] = smaller(key + e, task.s.keys - 1) * p.mask.column_stride;
#pragma unroll
    for (int n = 0; n < kWordsAtOnce; ++n) {
      const i64 row_place = smaller(row + n * kRowsAtOnce, last_row) * p.mask.row_stride;
      const u8* const from = reinterpret_cast<const u8*>(data) + row_place;
      words[n] = from[places[0]] | u32(from[places[1]]) << 8 | u32(from[places[2]]) << 16 | u32(from[places[3]]) << 24;
    }
  }

  /// Sets the bits of the thread's two rows, for the even and for the odd columns of its pairs, from words number
  /// `start` on. A ballot gives every fourth key of a row.
  STROBE_DEVICE void look(int start, u32 (&shown)[2][2]) const {
    const int lane = lane_index();
#pragma unroll
    for (int n = 0; n < kWordsAtOnce; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const u32 bits = __ballot_sync(~0u, (words[n] & 0xffu << 8 * e) != 0);
#pragma unroll
        for (int r = 0; r < kRowsAtOnce; ++r) {
          const int row = (start + n) * kRowsAtOnce + r;
          if (lane / 4 == row % 8 && lane % 2 == e / 2) shown[row / 8][e % 2] = bits >> r * kRowLanes;
        }
      }
    }
  }

  /// -inf to what is hidden.
  STROBE_DEVICE void hide(const AttentionParams& p, const Task<C>& task, int warp_row, int block,
                          typename C::Scores& s) {
    u32 shown[2][2] = {};
#pragma unroll
    for (int start = 0; start < kWords; start += kWordsAtOnce) {
      if constexpr (!kAhead) load(p, task, warp_row, block, start);
      look(start, shown);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) shown[n / 2][n % 2] >>= lane_index() % 4 / 2;
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
      if ((shown[n % 4 / 2][n % 2] >> n / 4 * 2 & 1) == 0) s[n / 4][n % 4] = minus_infinity();
    }
  }
};

/// Whether data hide nothing of a block from the rows of consumer `number`, as far as is known.
template <class C>
STROBE_DEVICE bool data_show_all(const AttentionParams& p, const Task<C>& task, int number, int block) {
  if constexpr ((C::kFeatures & kMask) != 0) {
    if (asked_for<C::kCommonFeatures>(p.mask.data != nullptr)) return false;
  }
  if constexpr (C::kSurveys && C::kHidesByData) {
    const int group = block >> task.group_bits;
    return (task.all[number][group / kWarpLanes] >> group % kWarpLanes & 1) != 0;
  }
  return true;
}

/// Whether positions hide nothing of a block from the rows of consumer `number`.
template <class C>
STROBE_DEVICE bool positions_show_all(const Task<C>& task, int number, int block) {
  const ConsumerRows& rows = task.rows[number];
  if constexpr (C::kSurveys) {
    if ((block + 1) * C::kKeyBlock <= smaller(task.s.prefix, task.s.keys)) return true;
  }
  return block * C::kKeyBlock >= rows.all_first && (block + 1) * C::kKeyBlock <= rows.all_last;
}

/// Whether every one of these rows sees every key.
template <class C>
STROBE_DEVICE bool sees_all_keys(const AttentionParams& p, const Task<C>& task, int number, int block) {
  if constexpr (C::kHidesByData) {
    if (!data_show_all<C>(p, task, number, block)) return false;
  }
  return positions_show_all<C>(task, number, block);
}

/// Hides keys of the block from rows whose documents are others. Each lane looks up four keys of 128.
template <class C>
STROBE_DEVICE void hide_documents(const AttentionParams& p, const Task<C>& task, int number, int block,
                                  typename C::Scores& s) {
  constexpr int kLoads = C::kKeyBlock / kWarpLanes;
  const Sequence& sequence = task.s;
  const Documents of_queries = query_documents(p, sequence), of_keys = key_documents(p, sequence);
  const int row = task.rows[number].first_row + warp_index() % 4 * 16 + lane_index() / 4, last = sequence.queries - 1;
  const int own[2] = {of_queries(smaller(row, last)), of_queries(smaller(row + 8, last))};
  int documents[kLoads];
#pragma unroll
  for (int n = 0; n < kLoads; ++n) {
    documents[n] = of_keys(smaller(block * C::kKeyBlock + n * kWarpLanes + lane_index(), sequence.keys - 1));
  }
#pragma unroll
  for (int n = 0; n < 2 * C::kKeyTiles; ++n) {
    const int document = __shfl_sync(~0u, documents[n / 8], n / 2 % 4 * 8 + lane_index() % 4 * 2 + n % 2);
    if (document != own[0]) s[n / 2][n % 2] = minus_infinity();
    if (document != own[1]) s[n / 2][2 + n % 2] = minus_infinity();
  }
}

/// Hides keys that the block mask hides. Each lane looks up four keys of 128, for one row of the mask at a time.
template <class C>
STROBE_DEVICE void hide_masked_blocks(const AttentionParams& p, const Task<C>& task, int number, int block,
                                      typename C::Scores& s) {
  constexpr int kLoads = C::kKeyBlock / kWarpLanes;
  const int warp_row = task.rows[number].first_row + warp_index() % 4 * 16, last_row = task.s.queries - 1;
  const char* const mask =
      p.block_mask.data + task.s.batch * p.block_mask.batch_stride + task.head * p.block_mask.head_stride;
  i64 places[kLoads];
#pragma unroll
  for (int n = 0; n < kLoads; ++n) {
    const int key = smaller(block * C::kKeyBlock + n * kWarpLanes + lane_index(), task.s.keys - 1);
    places[n] = key / p.block_columns * p.block_mask.column_stride;
  }
  const int row = warp_row + lane_index() / 4;
  const int own[2] = {smaller(row, last_row) / p.block_rows, smaller(row + 8, last_row) / p.block_rows};
  const int last = smaller(warp_row + 15, last_row) / p.block_rows;
  u32 shown[2][kLoads] = {};
#pragma unroll 1
  for (int mask_row = smaller(warp_row, last_row) / p.block_rows; mask_row <= last; ++mask_row) {
#pragma unroll
    for (int n = 0; n < kLoads; ++n) {
      const u32 bits = __ballot_sync(~0u, mask[mask_row * p.block_mask.row_stride + places[n]] != 0);
      if (own[0] == mask_row) shown[0][n] = bits;
      if (own[1] == mask_row) shown[1][n] = bits;
    }
  }
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
    const int t = n / 4, bit = t % 4 * 8 + lane_index() % 4 * 2 + n % 2;
    if ((shown[n % 4 / 2][t / 4] >> bit & 1) == 0) s[t][n % 4] = minus_infinity();
  }
}

/// Which of a thread's columns of a row come before one, as bits: column 8 t + e, from its first one on, is bit 2 t +
/// e.
template <class C>
STROBE_DEVICE u32 columns_before(int column) {
  static_assert(2 * C::kKeyTiles <= 32);
  const u32 inside = u32(clamped(column, 0, C::kKeyBlock)), count = inside / 8 * 2 + smaller(int(inside % 8), 2);
  return count == 0 ? 0u : ~0u >> (32 - count);
}

/// -inf to what position hides from the rows of consumer `number`. Bits that are tested one after another ptxas turns
/// into seven predicates by one instruction.
template <class C>
STROBE_DEVICE void hide_by_position(const ForwardParams& f, const Task<C>& task, int number, int block,
                                    typename C::Scores& s) {
  const ConsumerRows& rows = task.rows[number];
  const Sequence& sequence = task.s;
  const int row = warp_index() % 4 * 16 + lane_index() / 4;
  const int base = block * C::kKeyBlock + 2 * (lane_index() % 4);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = rows.first_row + tile_row<C>(f, row + 8 * half).query;
    u32 seen = 0;
    if (i < rows.last_row) {
      const KeyRange keys = visible_keys(f.attention, sequence, i);
      seen = columns_before<C>(keys.last - base) & ~columns_before<C>(keys.first - base);
      if constexpr (C::kSurveys) seen |= columns_before<C>(smaller(sequence.prefix, sequence.keys) - base);
    }
#pragma unroll
    for (int n = 0; n < 2 * C::kKeyTiles; ++n) {
      if ((seen >> n & 1) == 0) s[n / 2][2 * half + n % 2] = minus_infinity();
    }
  }
}

/// Hides keys of a block from those rows of consumer `number` that do not see them.
template <class C>
STROBE_DEVICE void hide_keys(const ForwardParams& f, const Task<C>& task, int number, int block,
                             const BlockMask<C>& ahead, typename C::Scores& s) {
  const AttentionParams& p = f.attention;
  if (!C::kHidesByData || !positions_show_all<C>(task, number, block)) hide_by_position<C>(f, task, number, block, s);
  if constexpr (C::kHidesByData) {
    if (data_show_all<C>(p, task, number, block)) return;
    if constexpr ((C::kFeatures & kDocuments) != 0) {
      if (asked_for<C::kCommonFeatures>(p.query_documents.data != nullptr)) {
        hide_documents<C>(p, task, number, block, s);
      }
    }
    if constexpr ((C::kFeatures & kBlockMask) != 0) {
      if (asked_for<C::kCommonFeatures>(p.block_mask.data != nullptr)) {
        hide_masked_blocks<C>(p, task, number, block, s);
      }
    }
    if constexpr ((C::kFeatures & kMask) != 0) {
      if (!asked_for<C::kCommonFeatures>(p.mask.data != nullptr)) return;
      BlockMask<C> mask = ahead;
      mask.hide(p, task, task.rows[number].first_row + warp_index() % 4 * 16, block, s);
    }
  }
}

}  // namespace strobe::cuda::sm90
