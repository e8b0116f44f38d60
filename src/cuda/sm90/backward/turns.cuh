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

/// A consumer's share of a tile's dQ.
template <class C>
struct GradQueryShare {
  const sm80::BackwardParams& f;
  const typename C::Visit& visit;
  int number;  // of the warpgroup, among all of the cluster

  using Element = typename C::Element;
  using Sums = typename C::GradQuery;

  /// Where the thread's four sums of fragment n lie: at n * 128.
  STROBE_DEVICE float* sums() const {
    const int warp = number * 4 + warp_index() % 4;
    return f.sums + i64(visit.place) * (C::kQueryTile * C::kDim) + warp * (C::kGradTiles * 128) + lane_index() * 4;
  }
  STROBE_DEVICE int row() const {
    return (C::kQueryTile > kWarpgroupRows ? number * kWarpgroupRows : 0) + warp_index() % 4 * 16 + lane_index() / 4;
  }
  STROBE_DEVICE int dim() const {
    return (C::kDim > C::kGradColumns ? number * C::kGradColumns : 0) + lane_index() % 4 * 2;
  }
  STROBE_DEVICE char* row_at(int row) const {
    return visit.grad_query + row * (f.grad_query.row_stride * size_of(f.grad_query.type));
  }

  /// To shared memory, as the thread's sums lie in global memory.
  STROBE_DEVICE void stage(u32 to, const Sums& g) const {
    to += ((number * 4 + warp_index() % 4) * (C::kGradTiles * 128) + lane_index() * 4) * 4;
#pragma unroll
    for (int n = 0; n < C::kGradTiles; ++n) {
      const float4 sum = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
      ptx::st_shared_16(to + n * 512, make_uint4(__float_as_int(sum.x), __float_as_int(sum.y), __float_as_int(sum.z),
                                                 __float_as_int(sum.w)));
    }
  }

  static STROBE_DEVICE void store(float* to, const Sums& g) {
#pragma unroll
    for (int n = 0; n < C::kGradTiles; ++n) {
      *reinterpret_cast<float4*>(to + n * 128) = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
    }
  }

  /// For types and alignments that are not the usual ones: from the sums in memory.
  STROBE_DEVICE void write_from_sums(const float* from) const {
    const AttentionParams& p = f.attention;
#pragma unroll 1
    for (int n = 0; n < C::kGradTiles * 4; ++n) {
      const int i = row() + n % 4 / 2 * 8, d = dim() + n / 4 * 8 + n % 2;
      if (i < visit.rows && d < p.head_dim) {
        store_float(row_at(i), f.grad_query.type, d, from[n / 4 * 128 + n % 4] * p.scale);
      }
    }
  }

  STROBE_DEVICE void write(float* sums, const Sums& g) const {
    const AttentionParams& p = f.attention;
    if (f.grad_query.type == strobe::cuda::Element::kFloat32 || f.grad_query.vector_bytes < 4) {
      store(sums, g);
      write_from_sums(sums);
      return;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = row() + 8 * half, left = i < visit.rows ? p.head_dim - dim() : 0;
      char* const to = row_at(i) + dim() * 2;
#pragma unroll
      for (int n = 0; n < C::kGradTiles; ++n) {
        const u32 pair = Element::pack(g[n][2 * half] * p.scale, g[n][2 * half + 1] * p.scale);
        if (8 * n < left) *reinterpret_cast<u32*>(to + 16 * n) = pair;
      }
    }
  }

  /// By the last block: adds what is there, and writes the gradient.
  STROBE_DEVICE void finish(Sums& g) const {
    float* const at = sums();
    if (!visit.first) {
#pragma unroll
      for (int n = 0; n < C::kGradTiles; ++n) {
        const float4 sum = ptx::ld_global_cg_16(at + n * 128);
        g[n][0] += sum.x, g[n][1] += sum.y, g[n][2] += sum.z, g[n][3] += sum.w;
      }
    }
    write(at, g);
  }
};

/// Where consumers add dQ of a tile themselves: in the order of time, up to the next tile's dQ.
enum class GivingPlace {
  kThere,               // dQ is there, half of the next tile's S^T under way
  kBesideScores,        // the other half too
  kAmongExponentials,   // half of the next tile's dP^T is under way
  kBehindExponentials,  // all of it
  kBesideGradValue,     // its dV too
  kAmongGrades,         // half of its dS^T is made
  kBesideGradKey        // its dK is under way
};

/// A thread's share of a tile's dQ where consumers add it themselves. Memory takes additions at its own pace, and who
/// asks for many at once waits; so one fragment after another is given away, in the tile after.
template <class C>
struct OwedGradQuery {
  using Sums = typename C::GradQuery;

  float* sums;        // as GradQueryShare has them
  bool owed = false;  // some fragments are
  bool stores;        // as the first block does; others add

  /// So many fragments have been given away behind a place.
  static constexpr int given_by(GivingPlace place) {
    return place == GivingPlace::kBesideGradKey ? C::kGradTiles : int(place) + 1;
  }
  static_assert(C::kGradTiles >= int(GivingPlace::kBesideGradKey) + 1);

  template <int kBegin, int kEnd>
  STROBE_DEVICE void give_fragments(const Sums& g) const {
#pragma unroll
    for (int n = kBegin; n < kEnd; ++n) {
      if (stores) {
        *reinterpret_cast<float4*>(sums + n * 128) = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
      } else {
        ptx::red_add_f32x4(sums + n * 128, g[n]);
      }
    }
  }
  template <GivingPlace kPlace>
  STROBE_DEVICE void give(const Sums& g) const {
    constexpr int kEnd = given_by(kPlace), kBegin = int(kPlace) == 0 ? 0 : given_by(GivingPlace(int(kPlace) - 1));
    if (owed) give_fragments<kBegin, kEnd>(g);
  }
  STROBE_DEVICE void give_all(const Sums& g) const { give_fragments<0, C::kGradTiles>(g); }
};

}  // namespace strobe::cuda::sm90
