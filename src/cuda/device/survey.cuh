// Which key blocks a tile of queries must visit, and which of them data hide nothing of: block masks and documents,
// looked up for many blocks at a time, so that the loop over blocks does not wait for memory.
#pragma once

#include "cuda/device/scores.cuh"

namespace strobe::cuda {

/// What the block mask shows of a rectangle: something, everything.
struct Shown {
  bool some, all;
};

STROBE_DEVICE Shown block_mask_shows(const AttentionParams& p, const Sequence& s, int head, const TileView& view,
                                     int first, int last) {
  const char* const data = p.block_mask.data + s.batch * p.block_mask.batch_stride + head * p.block_mask.head_stride;
  Shown shown{false, true};
  for (int i = view.first_row / p.block_rows; i * p.block_rows < view.last_row; ++i) {
    for (int j = first / p.block_columns; j * p.block_columns < last; ++j) {
      const bool set = data[i * p.block_mask.row_stride + j * p.block_mask.column_stride] != 0;
      shown.some |= set;
      shown.all &= set;
    }
  }
  return shown;
}
STROBE_DEVICE bool block_mask_keeps(const AttentionParams& p, const Sequence& s, int head, const TileView& view,
                                    int first, int last) {
  return block_mask_shows(p, s, head, view, first, last).some;
}

/// The documents of some rows: all of them in [low, high].
struct DocumentRange {
  int low, high;

  STROBE_DEVICE bool holds(int document) const { return document >= low && document <= high; }
  STROBE_DEVICE bool is_one() const { return low == high; }
};

/// Those of rows [first, last), at least one. The whole warp asks together.
STROBE_DEVICE DocumentRange documents_of(const Documents& documents, int first, int last) {
  int low = documents(first), high = low;
#pragma unroll 4
  for (int n = first; n < last; n += kWarpLanes) {
    const int document = documents(smaller(n + lane_index(), last - 1));
    low = smaller(low, document);
    high = larger(high, document);
  }
#pragma unroll
  for (int n = 1; n < kWarpLanes; n *= 2) {
    low = smaller(low, __shfl_xor_sync(~0u, low, n));
    high = larger(high, __shfl_xor_sync(~0u, high, n));
  }
  return {low, high};
}

/// Compares a range with 32 groups of kRows rows from `first` on; there are no rows from `last` on. Clears the bits of
/// those groups in `some` that have no document in common with it, and in `all` of those where not every row has the
/// one document that it is. The whole warp asks together. No branches: loads follow one another without waiting.
template <int kRows>
STROBE_DEVICE void compare_documents(DocumentRange range, const Documents& documents, int first, int last, u32& some,
                                     u32& all) {
  constexpr int kLoads = larger(kRows / kWarpLanes, 1), kGroupsAtOnce = larger(16 / kLoads, 1);
  const int row = first + lane_index() % kRows;
  u32 none = 0, not_all = range.is_one() ? 0u : ~0u;
#pragma unroll 1
  for (int start = 0; start < kWarpLanes; start += kGroupsAtOnce) {
    int found[kGroupsAtOnce][kLoads];
#pragma unroll
    for (int n = 0; n < kGroupsAtOnce * kLoads; ++n) {
      const int group = start + n / kLoads, i = row + group * kRows + n % kLoads * kWarpLanes;
      found[n / kLoads][n % kLoads] = documents(smaller(i, last - 1));
    }
#pragma unroll
    for (int n = 0; n < kGroupsAtOnce; ++n) {
      bool any = false, every = true;
#pragma unroll
      for (const int document : found[n]) {
        const bool holds = range.holds(document);
        any |= holds;
        every &= holds;
      }
      none |= u32(!__any_sync(~0u, any)) << (start + n);
      not_all |= u32(!__all_sync(~0u, every)) << (start + n);
    }
  }
  some &= ~none;
  all &= ~not_all;
}

/// Of 32 key blocks from `start` on, as bits: which have something that data show a tile, and nothing that they hide.
struct BlockSets {
  int start;
  u32 some, all;
};

/// The first such 32 that have any, among the blocks from `start` up to `blocks`, for the tile of kRows queries from
/// `first_row` on. The whole warp asks together. Out of line, and finds out for itself where the tile is: the loop that
/// asks has no registers to spare.
template <int kFeatures, int kRows, int kBlockKeys>
__device__ __noinline__ BlockSets look_at_blocks(const AttentionParams& p, int batch, int head, int first_row,
                                                 int start, int blocks) {
  const Sequence s = sequence_of(p, batch);
  const TileView view = view_of(p, s, first_row, kRows);
  const bool by_document = (kFeatures & kDocuments) != 0 && asked_for<kFeatures>(p.query_documents.data != nullptr);
  const bool by_block = (kFeatures & kBlockMask) != 0 && asked_for<kFeatures>(p.block_mask.data != nullptr);
  DocumentRange own{0, 0};
  if (by_document) own = documents_of(query_documents(p, s), view.first_row, view.last_row);
  BlockSets sets{start, 0, 0};
  for (;; sets.start += kWarpLanes) {
    const int mine = sets.start + lane_index(), first = mine * kBlockKeys, last = smaller(first + kBlockKeys, s.keys);
    Shown shown{mine < blocks && reaches(view, first, last), true};
    if (by_block && shown.some) shown = block_mask_shows(p, s, head, view, first, last);
    if ((kFeatures & kMask) != 0) shown.all &= p.mask.data == nullptr;
    sets.some = __ballot_sync(~0u, shown.some);
    sets.all = __ballot_sync(~0u, shown.all);
    if (by_document) {
      compare_documents<kBlockKeys>(own, key_documents(p, s), sets.start * kBlockKeys, s.keys, sets.some, sets.all);
    }
    if (sets.some != 0 || sets.start + kWarpLanes >= blocks) return sets;
  }
}

/// The blocks of a tile of kRows queries in order. Whole warps ask together; all warps of the tile hear the same.
template <int kFeatures, int kRows, int kBlockKeys>
class Survey {
  static constexpr bool kLooks = (kFeatures & (kBlockMask | kDocuments)) != 0;

 public:
  /// The first block at or after `block` that the tile must visit; `blocks` if there is none.
  STROBE_DEVICE int next(const AttentionParams& p, const Sequence& s, int head, const TileView& view, int block,
                         int blocks) {
    if constexpr (!kLooks) {
      const bool in_gap = block * kBlockKeys >= view.prefix && (block + 1) * kBlockKeys <= view.begin;
      return smaller(in_gap ? view.begin / kBlockKeys : block, blocks);
    } else {
      while (block < blocks) {
        if (u32(block - sets_.start) >= u32(kWarpLanes)) {
          sets_ = look_at_blocks<kFeatures, kRows, kBlockKeys>(p, s.batch, head, view.first_row, block, blocks);
          block = sets_.start;
        }
        const u32 found = sets_.some >> (block - sets_.start);
        if (found != 0) return block + __ffs(int(found)) - 1;
        block = sets_.start + kWarpLanes;
      }
      return blocks;
    }
  }

  /// Whether data hide nothing of a block that `next` has just returned.
  STROBE_DEVICE bool whole(int block) const {
    if constexpr (kLooks) return (sets_.all >> (block - sets_.start) & 1) != 0;
    return (kFeatures & kMask) == 0;
  }

 private:
  BlockSets sets_{-kWarpLanes, 0, 0};  // those that were looked at last
};

}  // namespace strobe::cuda
