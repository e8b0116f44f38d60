// What queries see: for one query a range of keys (causal, window, length) and a prefix; for a tile of queries which
// key blocks it must visit, and which of those are visible as a whole. Documents and masks, which look at data, are in
// scores.cuh; here they only rule out whole blocks.
#pragma once

#include "cuda/device/sequence.cuh"

namespace strobe::cuda {

/// Keys [first, last), and [0, prefix).
struct KeyRange {
  int first, last;
};

/// What query i sees by position and length alone.
STROBE_DEVICE KeyRange visible_keys(const AttentionParams& p, const Sequence& s, int i) {
  const int position = i + s.shift;
  const int first = position > p.left ? smaller(position - p.left, s.keys) : 0;
  const u32 end = u32(larger(position, -p.right - 1)) + u32(p.right) + 1;  // may not fit in an int
  return {first, larger(first, int(smaller(end, u32(s.keys))))};
}

STROBE_DEVICE bool sees(KeyRange range, int prefix, int j) {
  return (j >= range.first && j < range.last) || j < prefix;
}

/// Rows [first_row, last_row) of queries, and the keys that some and all of them see.
struct TileView {
  int first_row, last_row;
  int begin, end;           // some row sees a key only if it lies in [begin, end) or before prefix
  int all_first, all_last;  // every row sees [all_first, all_last)
  int prefix;               // at most the keys in use
};

STROBE_DEVICE TileView view_of(const AttentionParams& p, const Sequence& s, int first_row, int rows) {
  TileView view;
  view.first_row = first_row;
  view.last_row = smaller(first_row + rows, s.queries);
  const KeyRange first = visible_keys(p, s, view.first_row), last = visible_keys(p, s, view.last_row - 1);
  view.begin = first.first;
  view.end = last.last;
  view.all_first = last.first;
  view.all_last = first.last;
  view.prefix = smaller(s.prefix, s.keys);
  return view;
}

/// Whether any position of keys [first, last) is open to the tile.
STROBE_DEVICE bool reaches(const TileView& view, int first, int last) {
  return (first < view.end && last > view.begin) || first < view.prefix;
}
/// Whether every row sees all of them.
STROBE_DEVICE bool sees_all(const TileView& view, int first, int last) {
  return (first >= view.all_first && last <= view.all_last) || last <= view.prefix;
}

/// Whether the block mask leaves anything of the rectangle. The lanes of a warp look at different blocks.
STROBE_DEVICE bool block_mask_keeps(const AttentionParams& p, const Sequence& s, int head, const TileView& view,
                                    int first, int last) {
  const char* const data = p.block_mask.data + s.batch * p.block_mask.batch_stride + head * p.block_mask.head_stride;
  for (int i = view.first_row / p.block_rows; i * p.block_rows < view.last_row; ++i) {
    for (int j = first / p.block_columns; j * p.block_columns < last; ++j) {
      if (data[i * p.block_mask.row_stride + j * p.block_mask.column_stride]) return true;
    }
  }
  return false;
}

/// The first block at or after `block` that the tile must visit; `blocks` if there is none. The whole warp asks
/// together.
template <int kFeatures, int kBlockKeys>
STROBE_DEVICE int next_block(const AttentionParams& p, const Sequence& s, int head, const TileView& view, int block,
                             int blocks) {
  if constexpr ((kFeatures & kBlockMask) == 0) {
    const bool in_gap = block * kBlockKeys >= view.prefix && (block + 1) * kBlockKeys <= view.begin;
    return smaller(in_gap ? view.begin / kBlockKeys : block, blocks);
  } else {
    for (; block < blocks; block += kWarpLanes) {
      const int mine = block + lane_index(), first = mine * kBlockKeys;
      const int last = smaller(first + kBlockKeys, s.keys);
      const bool kept = mine < blocks && reaches(view, first, last) &&
                        (p.block_mask.data == nullptr || block_mask_keeps(p, s, head, view, first, last));
      const u32 found = __ballot_sync(~0u, kept);
      if (found != 0) return block + __ffs(int(found)) - 1;
    }
    return blocks;
  }
}

}  // namespace strobe::cuda
