// Which key blocks and query tiles meet, seen from both sides: the tiles that a key block visits, and the turn that the
// block has among all that add to a tile's dQ. Turns go by key block, so that sums are made in one order always.
#pragma once

#include "cuda/sm80/backward/config.cuh"

namespace strobe::cuda::sm80 {

/// The number of a sequence's first query tile among those of all sequences. Packed ones of any lengths never share
/// one.
STROBE_DEVICE int first_slot(const BackwardParams& f, const Sequence& s) {
  return f.attention.packed_queries ? s.first_query / f.query_tile + s.batch : s.batch * f.tiles;
}

/// What queries of a sequence see by position, as visible_keys has it, in the few instructions that the inner loop can
/// spare: lengths are below 2^30.
struct Sight {
  int lowest, highest;  // key - query, outside of the prefix
  int keys, queries, prefix;

  STROBE_DEVICE Sight(const AttentionParams& p, const Sequence& s)
      : lowest(int(clamped<i64>(i64(s.shift) - p.left, -kFar, kFar))),
        highest(int(clamped<i64>(i64(s.shift) + p.right, -kFar, kFar))),
        keys(s.keys),
        queries(s.queries),
        prefix(smaller(s.prefix, s.keys)) {}

  STROBE_DEVICE bool shows(int i, int j) const {
    const bool near = (j - i >= lowest) & (j - i <= highest) & (j < keys);  // & and |: no branches
    return (near | (j < prefix)) & (i < queries);
  }

  STROBE_DEVICE TileView tile(int first_row, int rows) const {
    TileView view;
    view.first_row = first_row;
    view.last_row = smaller(first_row + rows, queries);
    const int last = view.last_row - 1;
    view.begin = clamped(first_row + lowest, 0, keys);
    view.end = clamped(last + highest + 1, 0, keys);
    view.all_first = clamped(last + lowest, 0, keys);
    view.all_last = clamped(first_row + highest + 1, 0, keys);
    view.prefix = prefix;
    return view;
  }
};

/// The key blocks that a query tile reaches by position: [0, prefix) and [first, last), where first >= prefix.
struct BlockRange {
  int prefix, first, last;

  STROBE_DEVICE bool holds(int block) const { return block < prefix || (block >= first && block < last); }
  STROBE_DEVICE int before(int block) const { return block < prefix ? block : prefix + block - first; }
  STROBE_DEVICE int count() const { return prefix + last - first; }
};

STROBE_DEVICE BlockRange blocks_of(const TileView& view, u32 key_block) {
  BlockRange range;
  range.prefix = int((u32(view.prefix) + key_block - 1) / key_block);
  range.first = larger(int(u32(view.begin) / key_block), range.prefix);
  range.last = larger(view.end > view.begin ? int((u32(view.end) + key_block - 1) / key_block) : 0, range.first);
  return range;
}

/// A query tile of one head of the group, and the block's turn at its dQ.
struct Visit {
  int head;  // -1: none
  int tile, turn;
  bool last;   // nobody adds to dQ after this
  bool empty;  // data hide all of it
  bool whole;  // data hide nothing of it

  STROBE_DEVICE bool none() const { return head < 0; }
};

/// The visits of one key block, head by head, from the last tile that sees it to the first. The whole warp asks
/// together.
template <class C>
struct Visits {
  const AttentionParams& p;
  const Sequence& s;
  Sight sight;
  int block, last_head;                 // heads of the group end before last_head
  int lowest, highest;                  // no tile outside of [lowest, highest) reaches the block
  DocumentRange documents;              // of the block's keys
  mutable int looked_at = -kWarpLanes;  // the first of 32 tiles, and of each
  mutable u32 some_of = 0, all_of = 0;  // whether their documents are among the block's, and are one

  STROBE_DEVICE Visits(const AttentionParams& p, const Sequence& s, int block, int kv_head)
      : p(p), s(s), sight(p, s), block(block), last_head((kv_head + 1) * p.group) {
    const i64 first_key = i64(block) * C::kKeyBlock;
    lowest = int(clamped<i64>(first_key - sight.highest, 0, s.queries)) / C::kQueryTile;
    highest = ceil_div(int(clamped<i64>(first_key + C::kKeyBlock - sight.lowest, 0, s.queries)), C::kQueryTile);
    if (first_key < sight.prefix) {
      lowest = 0;
      highest = ceil_div(s.queries, C::kQueryTile);
    } else if (first_key >= s.keys) {
      highest = lowest;
    }
    if constexpr ((C::kFeatures & kDocuments) != 0) {
      if (asked_for<C::kFeatures>(p.query_documents.data != nullptr)) {
        documents = documents_of(int(first_key), int(smaller<i64>(first_key + C::kKeyBlock, s.keys)),
                                 [&](int j) { return key_document(p, s, j); });
      }
    }
  }

  static STROBE_DEVICE Visit nothing() { return {-1, 0, 0, false, false, false}; }
  STROBE_DEVICE Visit first() const { return find(last_head - p.group, highest - 1); }
  STROBE_DEVICE Visit after(const Visit& visit) const { return find(visit.head, visit.tile - 1); }

 private:
  STROBE_DEVICE Visit find(int head, int tile) const {
    for (; head < last_head; ++head, tile = highest - 1) {
      for (; tile >= lowest; --tile) {
        const TileView view = sight.tile(tile * C::kQueryTile, C::kQueryTile);
        const BlockRange range = blocks_of(view, C::kKeyBlock);
        if (!range.holds(block)) continue;
        if ((C::kFeatures & kBlockMask) == 0 || p.block_mask.data == nullptr) {
          const int turn = range.before(block);
          return with_documents({head, tile, turn, turn + 1 == range.count(), false, !hides_by_mask()});
        }
        const Visit visit = find_by_mask(head, tile, view, range);
        if (!visit.none()) return with_documents(visit);
      }
    }
    return nothing();
  }

  STROBE_DEVICE bool hides_by_mask() const {
    return (C::kFeatures & kMask) != 0 && asked_for<C::kFeatures>(p.mask.data != nullptr);
  }

  /// The visit, knowing what documents hide of it.
  STROBE_DEVICE Visit with_documents(Visit visit) const {
    if ((C::kFeatures & kDocuments) != 0 && asked_for<C::kFeatures>(p.query_documents.data != nullptr)) {
      if (u32(visit.tile - looked_at) >= u32(kWarpLanes)) {
        looked_at = visit.tile / kWarpLanes * kWarpLanes;
        some_of = all_of = ~0u;
        compare_documents<C::kQueryTile>(
            documents, looked_at * C::kQueryTile, s.queries, [&](int i) { return query_document(p, s, i); }, some_of,
            all_of);
      }
      visit.empty = (some_of >> (visit.tile - looked_at) & 1) == 0;
      visit.whole &= (all_of >> (visit.tile - looked_at) & 1) != 0;
    }
    return visit;
  }

  /// Counts the blocks before and after this one that the block mask keeps for the tile.
  STROBE_DEVICE Visit find_by_mask(int head, int tile, const TileView& view, const BlockRange& range) const {
    int before = 0, after = 0;
    bool kept_here = false, whole = false;
    for (int start = 0; start < range.last || start < range.prefix; start += kWarpLanes) {
      const int mine = start + lane_index(), first = mine * C::kKeyBlock;
      Shown shown{false, false};
      if (range.holds(mine)) shown = block_mask_shows(p, s, head, view, first, smaller(first + C::kKeyBlock, s.keys));
      const u32 found = __ballot_sync(~0u, shown.some), wholes = __ballot_sync(~0u, shown.all);
      const int place = block - start;  // of this block among the 32
      const u32 lower = place >= 32 ? ~0u : place <= 0 ? 0u : (1u << place) - 1u;
      const u32 self = place >= 0 && place < 32 ? 1u << place : 0u;
      before += __popc(found & lower);
      after += __popc(found & ~lower & ~self);
      kept_here |= (found & self) != 0;
      whole |= (wholes & self) != 0;
    }
    return kept_here ? Visit{head, tile, before, after == 0, false, whole && !hides_by_mask()} : nothing();
  }
};

}  // namespace strobe::cuda::sm80
