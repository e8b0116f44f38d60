// The producer: one warp that takes item after item and keeps the tensor copy engine busy with its keys and values and
// then tile after tile of queries and what belongs to them. Rows that position hides from everyone may hold anything,
// NaN too, and a weight of zero would not silence it: where a tile has some, the warp waits for the copy and clears
// them before consumers hear of it.
#pragma once

#include "cuda/sm90/backward/survey.cuh"

namespace strobe::cuda::sm90 {

/// Rows [begin, end) of a tile.
struct TileRows {
  int begin, end;
};

template <class C>
struct BackwardProducer {
  const typename C::Params& f;
  BackwardMemory<C> memory;
  typename C::Visit* told;  // [kBackwardVisits]
  BackwardItem* items;      // [2]
  Ring<C::kItems> item_ring;
  Ring<C::kKeyStages> keys;
  Ring<C::kStages> ring;  // of queries and of gradients of outputs
  u32 landed_parity = 0;

  STROBE_DEVICE const AttentionParams& p() const { return f.common.attention; }
  STROBE_DEVICE const BackwardItem& item() const { return items[item_ring.stage()]; }
  STROBE_DEVICE const Sequence& s() const { return item().s; }

  template <int kRows, int kPanels, class Hidden>
  STROBE_DEVICE void clear_rows(u32 tile, TileRows kept, Hidden hidden) const {
    for (int n = lane_index(); n < kRows * kPanels * 8; n += kWarpLanes) {
      const int row = n / 8 % kRows;
      if (row < kept.begin || row >= kept.end || hidden(row)) {
        ptx::st_shared_16(tile + n * kChunkBytes, make_uint4(0, 0, 0, 0));
      }
    }
    ptx::fence_proxy_async();
    __syncwarp();
  }

  /// Rows [row, row + kRows) of one head, panel by panel from `first_panel` on, and `more` bytes that someone else asks
  /// for; all but the rows to keep, and those that are `hidden` of them, is cleared where `dirty`. `full` hears of it.
  template <int kRows, int kPanels, class Hidden, class More>
  STROBE_DEVICE void load(u32 to, const TensorMap& map, u32 full, int row, int head, int batch, int first_panel,
                          u64 policy, bool dirty, TileRows kept, Hidden hidden, int more_bytes, More more) {
    const u32 barrier = dirty ? memory.landed() : full;
    if (lane_index() == 0) {
      ptx::mbarrier_arrive_expect_tx(barrier, kRows * kPanels * kPanelRowBytes + more_bytes);
#pragma unroll
      for (int n = 0; n < kPanels; ++n) {
        ptx::cp_async_bulk_tensor_load(to + n * kRows * kPanelRowBytes, map, barrier, (first_panel + n) * kPanel, row,
                                       head, batch, policy);
      }
      more(barrier);
    }
    if (!dirty) return;
    wait_for(barrier, landed_parity);
    landed_parity ^= 1;
    clear_rows<kRows, kPanels>(to, kept, hidden);
    if (lane_index() == 0) ptx::mbarrier_arrive(full);
  }

  /// A thread block's keys or values from `first_key` on: panels [first_panel, first_panel + kPanels).
  template <int kPanels = C::kPanels>
  STROBE_DEVICE void load_keys(const TensorMap& map, u32 to, u32 full, int first_key, int first_panel = 0) {
    const KeyRange first = visible_keys(p(), s(), 0), last = visible_keys(p(), s(), s().queries - 1);
    TileRows kept{first.first - first_key, last.last - first_key}, gap{0, 0};
    if constexpr (C::kHasPrefix) {
      const int prefix = larger(smaller(s().prefix, s().keys) - first_key, 0);
      if (prefix > 0) {
        if (prefix < kept.begin) gap = {prefix, kept.begin};
        kept = {0, larger(prefix, kept.end)};
      }
    }
    const int stored = p().key_length - s().first_key - first_key;  // beyond, the copy engine writes zeros
    const bool dirty = kept.begin > 0 || kept.end < smaller(C::kOwnKeys, stored) || (C::kHasPrefix && gap.end > 0);
    const auto hidden = [=](int row) { return C::kHasPrefix && row >= gap.begin && row < gap.end; };
    load<C::kOwnKeys, kPanels>(to, map, full, s().first_key + first_key, item().kv_head, s().cache_row, first_panel,
                               ptx::kEvictFirst, dirty, kept, hidden, 0, [](u32) {});
  }

  STROBE_DEVICE void tell(const sm80::Visit& visit, const TileView& view, int place, bool more,
                          typename C::Visit& to) const {
    const int first_key = item().first_key;
    const RowAddress rows = query_rows(p(), f.common.grad_query, s(), visit.head);
    to.grad_query = const_cast<char*>(rows(view.first_row));
    to.first_row = view.first_row;
    to.rows = s().queries - view.first_row;
    to.place = place;
    to.edge = !sees_all(view, first_key, first_key + C::kOwnKeys) || view.last_row < view.first_row + C::kQueryTile;
    to.first = visit.turn == 0;
    to.last = visit.last;
    to.more = more;
    if constexpr (C::kFeatures != 0) {
      to.head = visit.head;
      to.turn = visit.turn;
      to.slope = alibi_slope<C::kCommonFeatures>(p(), s(), visit.head);
      to.whole = visit.whole && ((C::kFeatures & kMask) == 0 || p().mask.data == nullptr);
    }
  }

  /// Whether the tile's facts say that a query which sees nothing has something infinite or NaN
  /// (sm80/backward/prepare).
  STROBE_DEVICE bool has_blind_queries(int place) const {
    if constexpr (!C::kHidesByData) return false;
    return f.common.facts[i64(place) * f.common.fact_floats + 2 * C::kQueryTile] != 0.0f;
  }

  /// And what dQ needs of the other thread block's keys.
  STROBE_DEVICE void load_values() {
    const u32 full = memory.values_full(keys.stage());
    load_keys(f.value, memory.values(keys.stage()), full, item().first_key);
    if constexpr (C::kCluster > 1) {
      load_keys<C::kOwnPanels>(f.key, memory.other_keys(keys.stage()), full, other_first_key<C>(item(), memory.rank),
                               memory.rank * C::kOwnPanels);
    }
  }

  STROBE_DEVICE void load_visit(const sm80::Sight& sight, const sm80::Visit& visit, bool is_first, bool more) {
    const int first_row = visit.tile * C::kQueryTile, row = s().first_query + first_row;
    const int place = visit.head * f.common.slots + sm80::first_slot(f.common, s()) + visit.tile;
    const int batch = p().packed_queries ? 0 : s().batch;
    TileRows kept{-sight.highest - first_row, smaller(s().queries, s().keys - sight.lowest) - first_row};
    if (C::kHasPrefix && sight.prefix > 0) kept = {0, s().queries - first_row};
    const bool blind = has_blind_queries(place);
    const bool dirty = blind || kept.begin > 0 || kept.end < smaller(C::kQueryTile, p().query_length - row);
    const auto hidden = [=, this](int row) {  // LSE is +inf where a query sees nothing
      return C::kHidesByData && blind && ptx::ld_shared_4(memory.lse(ring.stage()) + row * 4) == 0x7f800000u;
    };

    wait_for(memory.query_empty(ring.stage()), ring.parity() ^ 1);
    if (lane_index() == 0)
      tell(visit, sight.tile(first_row, C::kQueryTile), place, more, told[ring.count % kBackwardVisits]);
    const auto load_tile = [&](u32 to, const TensorMap& map, u32 full, int more_bytes, auto more) {
      load<C::kQueryTile, C::kPanels>(to, map, full, row, visit.head, batch, 0, ptx::kEvictLast, dirty, kept, hidden,
                                      more_bytes, more);
    };
    load_tile(memory.queries(ring.stage()), f.query, memory.query_full(ring.stage()), C::kFactBytes, [&](u32 barrier) {
      ptx::cp_async_bulk_load(memory.lse(ring.stage()), f.common.facts + i64(place) * f.common.fact_floats, barrier,
                              C::kFactBytes);
    });
    if (is_first) load_values();
    const Ring<C::kGradOutputStages> grad_output{ring.count};
    wait_for(memory.grad_output_empty(grad_output.stage()), grad_output.parity() ^ 1);
    load_tile(memory.grad_outputs(grad_output.stage()), f.grad_output, memory.grad_output_full(grad_output.stage()), 0,
              [](u32) {});
    ring.advance();
  }

  STROBE_DEVICE auto own_visits() const {
    if constexpr (C::kSurveys) {
      return SurveyedVisits<C>(f, item());
    } else {
      return visits_of<C>(f.common, item());
    }
  }

  STROBE_DEVICE void load_item() {
    auto visits = own_visits();
    wait_for(memory.keys_empty(keys.stage()), keys.parity() ^ 1);
    load_keys(f.key, memory.keys(keys.stage()), memory.keys_full(keys.stage()), item().first_key);
    bool is_first = true;
    for (sm80::Visit visit = visits.first(), next; !visit.none(); visit = next) {
      next = visits.after(visit);
      load_visit(visits.sight, visit, is_first, !next.none());
      is_first = false;
    }
    keys.advance();
  }

  /// The number of the next item. The first thread block of a cluster takes it, and tells the other.
  STROBE_DEVICE int take_number() {
    if constexpr (C::kCluster == 1) return atomicAdd(f.common.items_taken, 1);
    const u32 place = memory.number(item_ring.stage()), full = memory.number_full(item_ring.stage());
    if (memory.rank == 0) {
      const int number = atomicAdd(f.common.items_taken, 1);
      ptx::st_async(place + memory.away, u32(number), full + memory.away);
      return number;
    }
    ptx::mbarrier_arrive_expect_tx(full, 4);
    while (!ptx::mbarrier_try_wait_parity_cluster(full, item_ring.parity())) {
    }
    const u32 number = ptx::ld_shared_4(place);
    ptx::mbarrier_arrive_cluster(memory.item_empty(item_ring.stage()) + memory.away);
    return int(number);
  }

  /// Takes the next item when all of this one is on its way: early enough that its first tiles are there in time, late
  /// enough that who is done first gets it.
  STROBE_DEVICE bool take_item() {
    wait_for(memory.item_empty(item_ring.stage()), item_ring.parity() ^ 1);
    if (lane_index() == 0) {
      const int number = take_number();
      items[item_ring.stage()] = number < f.items ? item_of<C>(f.common, number, memory.rank) : BackwardItem{};
      if constexpr (!C::kSurveys) ptx::mbarrier_arrive(memory.item_full(item_ring.stage()));
    }
    __syncwarp();
    if constexpr (C::kSurveys) {
      const bool visited = item().visited && !own_visits().first().none();
      __syncwarp();
      if (lane_index() == 0) {
        items[item_ring.stage()].visited = visited;
        ptx::mbarrier_arrive(memory.item_full(item_ring.stage()));
      }
      __syncwarp();
    }
    return item().there;
  }

  STROBE_DEVICE void run() {
    for (; take_item(); item_ring.advance()) {
      if (item().visited) load_item();
    }
  }
};

}  // namespace strobe::cuda::sm90
