// Which query tiles a block of keys visits, and when its turns at dQ come, where documents or a block mask decide. The
// producer's warp looks at 32 tiles, or blocks, at a time: lanes take one each. The documents of rows are summed up
// before (sm90/forward/documents.cuh).
#pragma once

#include "cuda/device/survey.cuh"
#include "cuda/sm90/backward/item.cuh"
#include "cuda/sm90/forward/documents.cuh"

namespace strobe::cuda::sm90 {

/// The visits of one item, in the order of sm80::Visits. A turn is one more than the number of the block before among
/// those that visit the tile. Every tile that positions show to some block is visited by one of them at least, so that
/// somebody writes its dQ.
template <class C>
struct SurveyedVisits {
  const typename C::Params& f;
  const BackwardItem& item;
  sm80::Visits<ByPosition<C>> by_position;
  const sm80::Sight& sight;
  int looked_at = -1, looked_head = -1;  // the first of the 32 tiles that were looked at last
  u32 some = 0, all = 0;                 // of which data show something, everything

  STROBE_DEVICE SurveyedVisits(const typename C::Params& params, const BackwardItem& of)
      : f(params),
        item(of),
        by_position(params.common.attention, of.s, of.block, of.kv_head),
        sight(by_position.sight) {}

  STROBE_DEVICE sm80::Visit first() { return find(by_position.last_head - p().group, by_position.highest - 1); }
  STROBE_DEVICE sm80::Visit after(const sm80::Visit& visit) { return find(visit.head, visit.tile - 1); }

 private:
  STROBE_DEVICE const AttentionParams& p() const { return f.common.attention; }

  STROBE_DEVICE DocumentRange documents_of_tile(int tile) const {
    constexpr int kGroups = C::kQueryTile / kWarpgroupRows;
    const int slot = first_slot(item.s.first_query, kWarpgroupRows, item.s.batch, f.query_slots, p().packed_queries);
    const int* const ranges = f.query_documents + 2 * (slot + tile * kGroups);
    DocumentRange range{ranges[0], ranges[1]};
    if (kGroups > 1 && tile * C::kQueryTile + kWarpgroupRows < item.s.queries) {
      range = {smaller(range.low, ranges[2]), larger(range.high, ranges[3])};
    }
    return range;
  }
  STROBE_DEVICE DocumentRange documents_of_block(int block) const {
    const int slot = first_slot(item.s.first_key, C::kKeyBlock, item.s.batch, f.key_slots, p().packed_keys) + block;
    return {f.key_documents[2 * slot], f.key_documents[2 * slot + 1]};
  }

  /// The block that visits a tile whatever data say: that of its first row's position, or the nearest one.
  STROBE_DEVICE int home_of(const TileView& view, const sm80::BlockRange& range) const {
    if (range.last == range.first) return range.prefix - 1;
    return clamped(larger(view.first_row + item.s.shift, 0) / C::kKeyBlock, range.first, range.last - 1);
  }

  STROBE_DEVICE Shown look_at(int head, int tile, int block) const {
    constexpr int kFeatures = C::kCommonFeatures;
    const TileView view = sight.tile(tile * C::kQueryTile, C::kQueryTile);
    const sm80::BlockRange range = sm80::blocks_of(view, C::kKeyBlock);
    if (view.first_row >= item.s.queries || !range.holds(block)) return {false, false};
    Shown shown{true, true};
    if constexpr ((kFeatures & kBlockMask) != 0) {
      if (asked_for<kFeatures>(p().block_mask.data != nullptr)) {
        const int first = block * C::kKeyBlock;
        shown = block_mask_shows(p(), item.s, head, view, first, smaller(first + C::kKeyBlock, item.s.keys));
      }
    }
    if constexpr ((kFeatures & kDocuments) != 0) {
      if (asked_for<kFeatures>(p().query_documents.data != nullptr)) {
        const DocumentRange queries = documents_of_tile(tile), keys = documents_of_block(block);
        shown.some &= keys.low <= queries.high && keys.high >= queries.low;
        shown.all &= keys.is_one() && queries.is_one() && keys.low == queries.low;
      }
    }
    if constexpr ((kFeatures & kMask) != 0) shown.all &= p().mask.data == nullptr;
    shown.some |= block == home_of(view, range);
    return shown;
  }

  STROBE_DEVICE void look_at_tiles(int head, int start) {
    const bool same_head = (C::kFeatures & kBlockMask) == 0 || head == looked_head;
    if (start == looked_at && same_head) return;
    looked_at = start;
    looked_head = head;
    const Shown shown = look_at(head, start + lane_index(), item.block);
    some = __ballot_sync(~0u, shown.some);
    all = __ballot_sync(~0u, shown.all);
  }

  /// Of the 32 blocks from `start` on, those that visit the tile.
  STROBE_DEVICE u32 visitors(int head, int tile, int start) const {
    return __ballot_sync(~0u, look_at(head, tile, start + lane_index()).some);
  }

  /// The block's turn among those that visit the tile: looks no further than to the one before and the one behind.
  STROBE_DEVICE void find_turn(sm80::Visit& visit) const {
    const sm80::BlockRange range = sm80::blocks_of(sight.tile(visit.tile * C::kQueryTile, C::kQueryTile), C::kKeyBlock);
    const int own = item.block / kWarpLanes * kWarpLanes, place = item.block - own;
    const u32 near = visitors(visit.head, visit.tile, own);
    u32 before = near & ((1u << place) - 1u), behind = near >> place >> 1;
    int start = own;
    while (before == 0 && start > 0) before = visitors(visit.head, visit.tile, start -= kWarpLanes);
    visit.turn = before == 0 ? 0 : start + kWarpLanes - __clz(int(before));
    for (start = own + kWarpLanes; behind == 0 && start < larger(range.last, range.prefix); start += kWarpLanes) {
      behind = visitors(visit.head, visit.tile, start);
    }
    visit.last = behind == 0;
  }

  STROBE_DEVICE sm80::Visit find(int head, int tile) {
    for (; head < by_position.last_head; ++head, tile = by_position.highest - 1) {
      for (; tile >= by_position.lowest; --tile) {
        look_at_tiles(head, tile / kWarpLanes * kWarpLanes);
        const u32 left = some & (~0u >> (kWarpLanes - 1 - tile % kWarpLanes));
        if (left == 0) {
          tile = looked_at;  // and on with those before
          continue;
        }
        tile = looked_at + kWarpLanes - 1 - __clz(int(left));
        if (tile < by_position.lowest) break;
        sm80::Visit visit{head, tile, 0, false, false, (all >> tile % kWarpLanes & 1) != 0};
        find_turn(visit);
        return visit;
      }
    }
    return by_position.nothing();
  }
};

}  // namespace strobe::cuda::sm90
