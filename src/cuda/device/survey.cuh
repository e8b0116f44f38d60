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

/// Those of rows [first, last), of which document(i) gives one. The whole warp asks together.
template <class DocumentOf>
STROBE_DEVICE DocumentRange documents_of(int first, int last, const DocumentOf& document) {
  int low = 0x7fffffff, high = -low - 1;
  for (int i = first + lane_index(); i < last; i += kWarpLanes) {
    low = smaller(low, document(i));
    high = larger(high, document(i));
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
/// one document that it is. The whole warp asks together.
template <int kRows, class DocumentOf>
STROBE_DEVICE void compare_documents(DocumentRange range, int first, int last, const DocumentOf& document, u32& some,
                                     u32& all) {
#pragma unroll 4
  for (int n = 0; n < kWarpLanes; ++n) {
    bool any = false, every = range.is_one();
#pragma unroll
    for (int k = 0; k < kRows; k += kWarpLanes) {
      const int row = k + lane_index(), i = first + n * kRows + row;
      if (row >= kRows || i >= last) continue;
      const bool holds = range.holds(document(i));
      any |= holds;
      every &= holds;
    }
    if (!__any_sync(~0u, any)) some &= ~(1u << n);
    if (!__all_sync(~0u, every)) all &= ~(1u << n);
  }
}

/// Of 32 rectangles of scores, as bits: which have something that data show, and nothing that data hide.
struct ShownSets {
  u32 some, all;
};

/// Those of a tile's queries from `first_row` on and the key blocks from `start` on. The whole warp asks together. Out
/// of line, and finds out for itself where the tile is: the loop that asks has no registers to spare.
template <int kFeatures, int kRows, int kBlockKeys>
__device__ __noinline__ ShownSets look_at_blocks(const AttentionParams& p, int batch, int head, int first_row,
                                                 int start) {
  const Sequence s = sequence_of(p, batch);
  const TileView view = view_of(p, s, first_row, kRows);
  const int first = (start + lane_index()) * kBlockKeys, last = smaller(first + kBlockKeys, s.keys);
  Shown shown{reaches(view, first, last), true};
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (asked_for<kFeatures>(p.block_mask.data != nullptr) && shown.some) {
      shown = block_mask_shows(p, s, head, view, first, last);
    }
  }
  if constexpr ((kFeatures & kMask) != 0) shown.all &= p.mask.data == nullptr;
  ShownSets sets{__ballot_sync(~0u, shown.some), __ballot_sync(~0u, shown.all)};
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (asked_for<kFeatures>(p.query_documents.data != nullptr)) {
      const DocumentRange documents =
          documents_of(view.first_row, view.last_row, [&](int i) { return query_document(p, s, i); });
      compare_documents<kBlockKeys>(
          documents, start * kBlockKeys, s.keys, [&](int j) { return key_document(p, s, j); }, sets.some, sets.all);
    }
  }
  return sets;
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
        if (u32(block - start_) >= u32(kWarpLanes)) {
          start_ = block;
          sets_ = look_at_blocks<kFeatures, kRows, kBlockKeys>(p, s.batch, head, view.first_row, block);
        }
        const u32 found = sets_.some >> (block - start_);
        if (found != 0) return block + __ffs(int(found)) - 1;
        block = start_ + kWarpLanes;
      }
      return blocks;
    }
  }

  /// Whether data hide nothing of a block that `next` has just returned.
  STROBE_DEVICE bool whole(int block) const {
    if constexpr (kLooks) return (sets_.all >> (block - start_) & 1) != 0;
    return (kFeatures & kMask) == 0;
  }

 private:
  int start_ = -kWarpLanes;  // the first of the 32 blocks that were looked at
  ShownSets sets_{0, 0};
};

}  // namespace strobe::cuda
