// dQ of a tile is the sum over all key blocks that see it, in float32 memory that lies as the consumers' registers do.
// Key blocks add one after another, by turns, so that sums are made in one order always: the first stores, the last one
// adds what is there and writes the gradient itself. Two threads of the producer's warpgroup see to the turns: one
// waits for them ahead of the consumers, the other has staged sums added by the copy engine and passes turns on, so
// that no consumer waits for memory.
#pragma once

#include "cuda/sm90/backward/item.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct BackwardTurns {
  const sm80::BackwardParams& f;
  BackwardMemory<C> memory;
  const typename C::Visit* told;
  const BackwardItem* items;

  STROBE_DEVICE int place_of(const BackwardItem& item, const sm80::Visit& visit) const {
    return visit.head * f.slots + sm80::first_slot(f, item.s) + visit.tile;
  }
  STROBE_DEVICE int place_of(const BackwardItem&, const BackwardOptionVisit& visit) const { return visit.place; }
  /// Each thread block of a cluster has turns of its own, for its columns of dQ.
  template <class Visit>
  STROBE_DEVICE int* turn_of(const BackwardItem& item, const Visit& visit) const {
    return f.turns + C::kCluster * place_of(item, visit) + memory.rank;
  }
  /// The turn behind a visit's. Where data leave gaps, turns are numbers of blocks.
  STROBE_DEVICE static int turn_after(const BackwardItem&, const sm80::Visit& visit) { return visit.turn + 1; }
  STROBE_DEVICE static int turn_after(const BackwardItem& item, const BackwardOptionVisit&) { return item.block + 1; }

  /// Calls `work` for every visit of every item.
  template <class Work>
  STROBE_DEVICE void for_visits(Work work) const {
    for (Ring<C::kItems> ring;; ring.advance()) {
      wait_for(memory.item_full(ring.stage()), ring.parity());
      const BackwardItem& item = items[ring.stage()];
      if (!item.there) return;
      if (item.visited && f.grad_query.data != nullptr) {
        const auto visits = visits_of<C>(f, item);
        for (sm80::Visit visit = visits.first(); !visit.none(); visit = visits.after(visit)) work(item, visit);
      }
      ptx::mbarrier_arrive(memory.item_empty(ring.stage()));
    }
  }

  /// The same of visits that the producer looks up: after `wait`, the next one has been told of; after `leave`, another
  /// one may be told in its place.
  template <class Wait, class Leave, class Work>
  STROBE_DEVICE void for_told_visits(Wait wait, Leave leave, Work work) const {
    u32 count = 0;
    for (Ring<C::kItems> ring;; ring.advance()) {
      wait_for(memory.item_full(ring.stage()), ring.parity());
      const BackwardItem& item = items[ring.stage()];
      if (!item.there) return;
      for (bool more = item.visited && f.grad_query.data != nullptr; more; ++count) {
        wait();
        const typename C::Visit visit = told[count % kBackwardVisits];
        leave();
        more = visit.more;
        work(item, visit);
      }
      ptx::mbarrier_arrive(memory.item_empty(ring.stage()));
    }
  }

  /// One thread.
  STROBE_DEVICE void await() const {
    Ring<2> ring;
    const auto work = [&](const BackwardItem& item, const auto& visit) {
      wait_for(memory.turn_come(ring.stage()), ring.parity() ^ 1);
      while (visit.turn > 0 && ptx::ld_acquire(turn_of(item, visit)) < visit.turn) {
      }
      ptx::mbarrier_arrive(memory.turn_come(ring.stage()));
      ring.advance();
    };
    if constexpr (C::kSurveys) {
      for_told_visits([&] { wait_for(memory.query_full(ring.stage()), ring.parity()); },
                      [&] { ptx::mbarrier_arrive(memory.query_empty(ring.stage())); }, work);
    } else {
      for_visits(work);
    }
  }

  /// Another one, or two of which each takes every other tile. A turn also comes only when the turn two tiles before
  /// has been passed on.
  STROBE_DEVICE void pass(int number) const {
    constexpr int kFloats = C::kQueryTile * C::kDim;
    Ring<2> ring;
    for (int n = number; n < 2; n += C::kTurnThreads) ptx::mbarrier_arrive(memory.turn_come(n));
    const auto work = [&](const BackwardItem& item, const auto& visit) {
      if (C::kTurnThreads == 2 && ring.stage() != number) return ring.advance();
      wait_for(memory.added(ring.stage()), ring.parity());
      if (C::kStagesGradQuery && !visit.last) {
        wait_for(memory.turn_come(ring.stage()), ring.parity());
        float* const to = f.sums + i64(place_of(item, visit)) * kFloats;
        if (visit.turn == 0) {
          ptx::cp_async_bulk_store(to, memory.grad_query(), kFloats * 4);
        } else {
          ptx::cp_reduce_async_bulk_add_f32(to, memory.grad_query(), kFloats * 4);
        }
        ptx::cp_async_bulk_commit_group();
        ptx::cp_async_bulk_wait_group_read();
      }
      if constexpr (C::kStagesGradQuery) ptx::mbarrier_arrive(memory.stage_empty());
      if (C::kStagesGradQuery && !visit.last) ptx::cp_async_bulk_wait_group();
      if (!visit.last) ptx::st_release(turn_of(item, visit), turn_after(item, visit));
      ptx::mbarrier_arrive(memory.turn_come(ring.stage()));
      ring.advance();
    };
    if constexpr (C::kSurveys) {
      // Consumers come to a place that is told anew only after the turn of its last visit has been passed on.
      for_told_visits([&] { wait_for(memory.added(ring.stage()), ring.parity()); }, [] {}, work);
    } else {
      for_visits(work);
    }
  }
};

}  // namespace strobe::cuda::sm90
