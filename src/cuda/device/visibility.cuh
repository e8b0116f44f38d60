// What queries see: for one query a range of keys (causal, window, length) and a prefix; for a tile of queries which
// key blocks it may have to visit, and which of those are visible as a whole. Documents and masks, which look at data,
// are in scores.cuh and survey.cuh.
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

}  // namespace strobe::cuda
