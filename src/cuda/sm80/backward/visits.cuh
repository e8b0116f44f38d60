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

/// Of 32 query tiles, as bits: which the block mask leaves to be visited, which documents show something of, and which
/// data hide nothing of.
struct TileSets {
  u32 kept, some, all;
};

/// Those of the tiles from `start` on and the block whose keys begin at `first_key`. The whole warp asks together. Out
/// of line, as look_at_blocks is.
template <class C>
__device__ __noinline__ TileSets look_at_tiles(const AttentionParams& p, int batch, int head, int first_key,
                                               int start) {
  const Sequence s = sequence_of(p, batch);
  const int last_key = smaller(first_key + C::kKeyBlock, s.keys);
  const TileView view = Sight(p, s).tile((start + lane_index()) * C::kQueryTile, C::kQueryTile);
  Shown shown{view.first_row < s.queries, true};
  if constexpr ((C::kFeatures & kBlockMask) != 0) {
    if (asked_for<C::kFeatures>(p.block_mask.data != nullptr) && shown.some) {
      shown = block_mask_shows(p, s, head, view, first_key, last_key);
    }
  }
  if constexpr ((C::kFeatures & kMask) != 0) shown.all &= p.mask.data == nullptr;
  TileSets sets{__ballot_sync(~0u, shown.some), ~0u, __ballot_sync(~0u, shown.all)};
  if constexpr ((C::kFeatures & kDocuments) != 0) {
    if (asked_for<C::kFeatures>(p.query_documents.data != nullptr)) {
      const DocumentRange own = documents_of(key_documents(p, s), first_key, last_key);
      compare_documents<C::kQueryTile>(own, query_documents(p, s), start * C::kQueryTile, s.queries, sets.some,
                                       sets.all);
    }
  }
  return sets;
}

/// A block's neighbours among those that the block mask keeps for a tile: one more than the number of the one before, 0
/// if there is none; whether there is one after. Looks no further than to them. The whole warp asks together.
struct Neighbours {
  int after_previous;
  bool more;
};
template <class C>
__device__ __noinline__ Neighbours neighbours_by_mask(const AttentionParams& p, int batch, int head, int tile,
                                                      int block) {
  const Sequence s = sequence_of(p, batch);
  const TileView view = Sight(p, s).tile(tile * C::kQueryTile, C::kQueryTile);
  const BlockRange range = blocks_of(view, C::kKeyBlock);
  const auto kept_from = [&](int start) {
    const int mine = start + lane_index(), first = mine * C::kKeyBlock;
    return __ballot_sync(
        ~0u, range.holds(mine) && block_mask_keeps(p, s, head, view, first, smaller(first + C::kKeyBlock, s.keys)));
  };
  const int own_start = block / kWarpLanes * kWarpLanes, place = block - own_start;
  const u32 own = kept_from(own_start);
  u32 lower = own & ((1u << place) - 1u), higher = own >> place >> 1;
  int start = own_start;
  while (lower == 0 && start > 0) lower = kept_from(start -= kWarpLanes);
  const int after_previous = lower == 0 ? 0 : start + kWarpLanes - __clz(int(lower));
  for (start = own_start + kWarpLanes; higher == 0 && start < larger(range.last, range.prefix); start += kWarpLanes) {
    higher = kept_from(start);
  }
  return {after_previous, higher != 0};
}

/// The visits of one key block, head by head, from the last tile that sees it to the first. The whole warp asks
/// together.
template <class C>
struct Visits {
  static constexpr bool kHidesByData = (C::kFeatures & kHidingFeatures) != 0;

  const AttentionParams& p;
  const Sequence& s;
  Sight sight;
  int block, last_head;                          // heads of the group end before last_head
  int lowest, highest;                           // no tile outside of [lowest, highest) reaches the block
  mutable int looked_at = -1, looked_head = -1;  // the first of the 32 tiles that were looked at last
  mutable TileSets sets{0, 0, 0};

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
  }

  /// The turn that comes after the visit's. Where a block mask leaves gaps, turns are numbers of blocks.
  STROBE_DEVICE int turn_after(const Visit& visit) const {
    const bool gaps = (C::kFeatures & kBlockMask) != 0 && p.block_mask.data != nullptr;
    return (gaps ? block : visit.turn) + 1;
  }

  static STROBE_DEVICE Visit nothing() { return {-1, 0, 0, false, false, false}; }
  STROBE_DEVICE Visit first() const { return find(last_head - p.group, highest - 1); }
  STROBE_DEVICE Visit after(const Visit& visit) const { return find(visit.head, visit.tile - 1); }

 private:
  STROBE_DEVICE Visit find(int head, int tile) const {
    for (; head < last_head; ++head, tile = highest - 1) {
      for (; tile >= lowest; --tile) {
        if constexpr (kHidesByData) {
          look(head, tile);
          if ((sets.kept >> tile % kWarpLanes & 1) == 0) continue;
        }
        const TileView view = sight.tile(tile * C::kQueryTile, C::kQueryTile);
        const BlockRange range = blocks_of(view, C::kKeyBlock);
        if (!range.holds(block)) continue;
        Visit visit{head, tile, range.before(block), false, false, true};
        visit.last = visit.turn + 1 == range.count();
        if constexpr (kHidesByData) {
          visit.empty = (sets.some >> tile % kWarpLanes & 1) == 0;
          visit.whole = (sets.all >> tile % kWarpLanes & 1) != 0;
          if ((C::kFeatures & kBlockMask) != 0 && p.block_mask.data != nullptr) {
            const Neighbours neighbours = neighbours_by_mask<C>(p, s.batch, head, tile, block);
            visit.turn = neighbours.after_previous;
            visit.last = !neighbours.more;
          }
        }
        return visit;
      }
    }
    return nothing();
  }

  STROBE_DEVICE void look(int head, int tile) const {
    const int start = tile / kWarpLanes * kWarpLanes;
    const bool same_head = (C::kFeatures & kBlockMask) == 0 || head == looked_head;
    if (start == looked_at && same_head) return;
    looked_at = start;
    looked_head = head;
    sets = look_at_tiles<C>(p, s.batch, head, block * C::kKeyBlock, start);
  }
};

}  // namespace strobe::cuda::sm80
