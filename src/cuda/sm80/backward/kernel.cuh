// The backward kernel for every GPU since Ampere: FlashAttention-2's algorithm 2 (arXiv 2307.08691) on mma.sync and
// cp.async. A block takes a block of keys of one KV head and passes over the query tiles that see it. Warps work in
// pairs, each for some of the keys and all queries of the tile, with keys as rows:
//   first warp    S^T = K Q^T      P^T = exp(S^T - LSE)       dV += P^T dO
//   second warp   dP^T = V dO^T    dS^T = P^T (dP^T - delta)  dK += dS^T Q
// and both share dQ = dS K of the tile before, so that one barrier a tile is enough. README.md has the timeline.
#pragma once

#include "cuda/device/groups.cuh"
#include "cuda/sm80/backward/epilogue.cuh"
#include "cuda/sm80/backward/products.cuh"
#include "cuda/sm80/backward/turns.cuh"
#include "cuda/sm80/backward/unseen.cuh"
#include "cuda/sm80/backward/weights.cuh"

namespace strobe::cuda::sm80 {

extern __shared__ __align__(128) char shared_memory[];

/// One block's work: keys [first_key, first_key + kKeyBlock) of kv_head in sequence s.
template <class C>
struct BackwardTask {
  using Element = typename C::Element;

  const BackwardParams& f;
  const AttentionParams& p;
  const Sequence& s;
  const Visits<C>& visits;
  int first_key, kv_head;
  int slot;  // of the sequence's first query tile
  int thread;
  u32 memory;

  STROBE_DEVICE u32 keys() const { return memory + C::kAt.keys; }
  STROBE_DEVICE u32 values() const { return memory + C::kAt.values; }
  STROBE_DEVICE u32 queries(int stage) const { return memory + C::kAt.queries + stage * C::QueryTile::kBytes; }
  STROBE_DEVICE u32 grad_outputs(int stage) const {
    return memory + C::kAt.grad_outputs + stage * C::GradOutputTile::kBytes;
  }
  STROBE_DEVICE u32 grad_scores(int parity) const {
    return memory + C::kAt.grad_scores + parity * C::GradScoreTile::kBytes;
  }
  STROBE_DEVICE u32 lse(int stage) const { return memory + C::kAt.facts + stage * (C::kFacts * 4); }
  STROBE_DEVICE u32 delta(int stage) const { return lse(stage) + C::kQueryTile * 4; }
  STROBE_DEVICE bool suspicious(int stage) const { return ptx::ld_shared_4(lse(stage) + C::kQueryTile * 8) != 0; }

  // `thread` keeps the compiler from reading threadIdx again and again, and from holding all that follows from it.
  STROBE_DEVICE int lane() const { return ptx::untraced(thread) % kWarpLanes; }
  STROBE_DEVICE int warp() const { return ptx::untraced(thread) / kWarpLanes; }

  // A pair's number, its keys in the block, and where P passes from its first to its second warp.
  STROBE_DEVICE bool is_first_warp() const { return thread < C::kThreads / 2; }
  STROBE_DEVICE int pair() const { return warp() % C::kPairs; }
  STROBE_DEVICE int warp_key() const { return pair() * C::kWarpKeys; }
  STROBE_DEVICE u32 exchange() const {
    return memory + C::kAt.weights + pair() * (C::kWarpKeys * C::kQueryTile * Element::kBytes);
  }
  /// Of the first or second half of the steps.
  STROBE_DEVICE int pair_barrier(int half) const { return 1 + 2 * pair() + half; }

  STROBE_DEVICE TileView view(const Visit& visit) const {
    return visits.sight.tile(visit.tile * C::kQueryTile, C::kQueryTile);
  }
  /// Whether data hide all of the tile.
  STROBE_DEVICE static bool is_empty(const Visit& visit) { return (C::kFeatures & kDocuments) != 0 && visit.empty; }
  /// Whether position hides anything of the tile from the block.
  STROBE_DEVICE bool is_edge(const TileView& view) const {
    return !sees_all(view, first_key, first_key + C::kKeyBlock) || view.last_row < view.first_row + C::kQueryTile;
  }

  template <class T, int kThreads>
  STROBE_DEVICE void load_rows(u32 tile, const RowsView& view, const char* data, RowWindow window, int dims) const {
    if constexpr (Element::kBytes == 2) {  // gradients come in the outputs' type
      if (view.type == strobe::cuda::Element::kFloat32) {
        return load_rounded_tile<T, kThreads>(tile, {data, view.row_stride * 4}, window, dims);
      }
    }
    const RowAddress rows{data, view.row_stride * Element::kBytes};
    const bool vectors = view.vector_bytes == kChunkBytes;
    if constexpr (Shares<T, kThreads>::kEven) {
      if (vectors) return load_tile<T, kThreads>(tile, rows, window, dims);
    }
    load_scattered_tile<T, kThreads>(tile, rows, window, dims, vectors);
  }

  STROBE_DEVICE void load_keys() const {
    const KeyRange first = visible_keys(p, s, 0), last = visible_keys(p, s, s.queries - 1);
    const int prefix = smaller(s.prefix, s.keys);
    const RowWindow window{first_key, prefix > 0 ? 0 : first.first, larger(last.last, prefix)};
    load_rows<typename C::KeyTile, C::kThreads>(keys(), p.key, key_rows(p, p.key, s, kv_head).data, window, p.head_dim);
    load_rows<typename C::ValueTile, C::kThreads>(values(), p.value, key_rows(p, p.value, s, kv_head).data, window,
                                                  p.value_dim);
  }

  /// Queries and what belongs to them, by the first warps, or by all where half of them had too few rows abreast.
  static constexpr int kWidest = larger(C::QueryTile::kRowChunks & -C::QueryTile::kRowChunks,
                                        C::GradOutputTile::kRowChunks & -C::GradOutputTile::kRowChunks);
  static constexpr bool kAllLoad = C::kThreads / 2 < 8 * kWidest;
  STROBE_DEVICE bool loads() const { return kAllLoad || is_first_warp(); }

  STROBE_DEVICE void load_visit(const Visit& visit, int stage) const {
    constexpr int kLoaders = kAllLoad ? C::kThreads : C::kThreads / 2;
    const RowWindow window{visit.tile * C::kQueryTile, 0, s.queries};
    load_rows<typename C::QueryTile, kLoaders>(queries(stage), p.query, query_rows(p, p.query, s, visit.head).data,
                                               window, p.head_dim);
    load_rows<typename C::GradOutputTile, kLoaders>(
        grad_outputs(stage), f.grad_output, query_rows(p, f.grad_output, s, visit.head).data, window, p.value_dim);
    const float* const facts = f.facts + i64(place_of(f, slot, visit)) * C::kFacts;
    const int place = ptx::untraced(thread);
    if (place < C::kFacts / 4) ptx::cp_async_16(lse(stage) + place * 16, facts + 4 * place, true);
  }

  /// Whether the bias comes by way of shared memory: each first warp brings that of its keys, a visit ahead.
  STROBE_DEVICE bool stages_bias() const {
    return C::kStagesBias && p.bias.in_chunks && int(p.bias.type) == int(p.query.type);
  }
  STROBE_DEVICE u32 own_bias() const { return memory + C::kAt.bias + pair() * C::BiasTile::kBytes; }
  STROBE_DEVICE void load_bias(const Visit& visit) const {
    if constexpr (C::kStagesBias) {
      if (visit.none() || is_empty(visit) || !stages_bias()) return;
      const int key = first_key + warp_key();
      const i64 place = s.batch * p.bias.batch_stride + visit.head * p.bias.head_stride + key;
      __syncwarp();  // all lanes have left the tile before
      load_warp_rows<typename C::BiasTile>(own_bias(), {p.bias.data + place * 2, p.bias.row_stride * 2},
                                           {visit.tile * C::kQueryTile, 0, s.queries}, s.keys - key);
      ptx::cp_async_commit();
    }
  }

  /// Where the bias is not staged, its place holds zeros.
  STROBE_DEVICE void clear_bias() const {
    if constexpr (C::kStagesBias) {
      if (stages_bias()) return;
      for (int n = lane() * 16; n < C::BiasTile::kBytes; n += kWarpLanes * 16) {
        ptx::st_shared_16(own_bias() + n, make_uint4(0, 0, 0, 0));
      }
      __syncwarp();
    }
  }

  STROBE_DEVICE Scene scene(const Visit& visit, int own_lane, float slope = 0.0f) const {
    const TileView tile = view(visit);
    return {.p = p,
            .sequence = s,
            .sight = visits.sight,
            .head = visit.head,
            .first_row = tile.first_row,
            .first_key = first_key + warp_key(),
            .hides = is_edge(tile) || (C::kHidesByData && !visit.whole),
            .lane = own_lane,
            .slope = slope};
  }

  /// `next` is loaded meanwhile. Exponentials of a step run beside the product of the step before.
  STROBE_DEVICE void visit_as_first(const Visit& visit, const Visit& next, int stage,
                                    typename C::Sums& grad_value) const {
    const float slope = alibi_slope<C::kFeatures>(p, s, visit.head);  // asked for early: nothing overtakes the product
    typename C::Scores scores;
    multiply_rows<Element, typename C::KeyTile, typename C::QueryTile>(lane(), keys(), warp_key(), queries(stage),
                                                                       scores);
    if (C::kStages > 1 && !next.none()) load_visit(next, 1 - stage);
    ptx::cp_async_commit();
    const Scene here = scene(visit, lane(), slope);
    Weigher<C> weigher{.scene = here, .lse = lse(stage), .exchange = exchange(), .bias = {own_bias(), !stages_bias()}};
    weigher.start(scores);
    typename C::Factor weights[2];
#pragma unroll
    for (int k = 0; k <= C::kSteps; ++k) {
      if (k < C::kSteps) weigher.step(k, scores, weights[k % 2]);
      if (k + 1 == C::kHalf || k + 1 == C::kSteps) {
        ptx::bar_arrive(pair_barrier((k + 1) / C::kHalf - 1), 2 * kWarpLanes);
      }
      if (k > 0) {
        multiply_step<Element, typename C::GradOutputTile>(here.lane, weights[(k - 1) % 2], grad_outputs(stage), k - 1,
                                                           grad_value);
      }
    }
  }

  STROBE_DEVICE void visit_as_second(const Visit& visit, const Visit& next, int stage, int parity,
                                     typename C::Sums& grad_key) const {
    typename C::Scores scores;
    multiply_rows<Element, typename C::ValueTile, typename C::GradOutputTile>(lane(), values(), warp_key(),
                                                                              grad_outputs(stage), scores);
    if (kAllLoad && C::kStages > 1 && !next.none()) load_visit(next, 1 - stage);
    ptx::cp_async_commit();
    const int own_lane = lane();
    const Scene here = scene(visit, own_lane);
    if (here.hides) hide<C, C::kScoreTiles>(here, 0, 0.0f, scores);  // P is 0 there, but dP may be NaN
    GradeStep<C> ahead[2];
    typename C::Factor grads[2];
#pragma unroll
    for (int k = -2; k < C::kSteps; ++k) {
      const int load = k + 2, step = k + 1;
      if (load < C::kSteps) {
        if (load % C::kHalf == 0) ptx::bar_sync(pair_barrier(load / C::kHalf), 2 * kWarpLanes);
        ahead[load % 2].load(own_lane, delta(stage), exchange(), load);
      }
      if (step >= 0 && step < C::kSteps) {
        grade<C>(p, own_lane, ahead[step % 2], grad_scores(parity), warp_key(), step, scores, grads[step % 2]);
      }
      if (k >= 0) {
        multiply_step<Element, typename C::QueryTile>(own_lane, grads[k % 2], queries(stage), k, grad_key);
      }
    }
  }

  /// Whether the block stores or writes the tile's dQ, instead of adding to it.
  STROBE_DEVICE bool opens_or_closes(const Visit& visit) const {
    return f.turns != nullptr && (visit.turn == 0 || visit.last);
  }

  /// A visit of which data hide everything: dS is zero.
  STROBE_DEVICE void pass_over(const Visit& visit, const Visit& next, int stage, int parity) const {
    if (C::kStages > 1 && loads() && !next.none()) load_visit(next, 1 - stage);
    ptx::cp_async_commit();
    if (is_first_warp() || !opens_or_closes(visit)) return;
    const u32 own = grad_scores(parity) + warp_key() * C::GradScoreTile::kRowBytes;
    for (int n = lane() * 16; n < C::kWarpKeys * C::GradScoreTile::kRowBytes; n += kWarpLanes * 16) {
      ptx::st_shared_16(own + n, make_uint4(0, 0, 0, 0));
    }
  }

  STROBE_DEVICE void visit_grad_query(const Visit& visit, int parity) const {
    if (visit.none() || f.grad_query.data == nullptr) return;
    if (is_empty(visit) && !opens_or_closes(visit)) return;  // nothing to add
#pragma unroll 1
    for (int part = 0; part < C::kGradParts; ++part) {
      typename C::GradQuery g;
      const int row = warp() / C::kGradColumns * C::kGradRows;
      const int dim = warp() % C::kGradColumns * C::kGradDims + part * C::kPartDims;
      multiply_columns<Element, typename C::GradScoreTile, typename C::KeyTile>(lane(), grad_scores(parity), row,
                                                                                keys(), dim, g);
      add_grad_query<C>(f, s, slot, visit, part, ptx::untraced(thread), g);
    }
  }

  /// What must happen once, when the keys have come.
  STROBE_DEVICE void check_keys() const {
    const bool gap = s.prefix > 0 && (p.left < kFar || s.shift > 0);  // keys between prefix and window
    if (!C::kHidesByData && !gap) return;
    clear_unseen_keys<C>(p, s, kv_head, first_key, keys(), values());
    __syncthreads();
  }

  STROBE_DEVICE void pass(typename C::Sums& sums) const {
    const Visit none = visits.nothing();
    Visit visit = visits.first(), next = visit.none() ? none : visits.after(visit), before = none, done = none;
    if (visit.none()) return;
    load_keys();
    if (loads()) load_visit(visit, 0);
    ptx::cp_async_commit();
    if (is_first_warp()) {
      clear_bias();
      load_bias(visit);
    }
    for (int n = 0;; ++n) {
      const int parity = n % 2, stage = C::kStages > 1 ? parity : 0;
      if (thread == 0) await_turn(f, slot, before);
      ptx::cp_async_wait<0>();
      __syncthreads();  // the tile is there for everyone, and so is dS of the tile before
      if (thread == C::kThreads / 2) pass_turn(f, slot, done, visits.turn_after(done));
      if (n == 0) check_keys();
      if (!visit.none() && suspicious(stage)) {
        clear_blind_queries<C>(lse(stage), queries(stage), grad_outputs(stage));
        __syncthreads();
      }
      const bool empty = !visit.none() && is_empty(visit), busy = !visit.none() && !empty;
      if (empty) pass_over(visit, next, stage, parity);
      if (is_first_warp()) {
        if (busy) visit_as_first(visit, next, stage, sums);
        load_bias(next);
        visit_grad_query(before, 1 - parity);
      } else {
        visit_grad_query(before, 1 - parity);
        if (busy) visit_as_second(visit, next, stage, parity, sums);
      }
      if (visit.none()) break;
      if (C::kStages == 1) {
        __syncthreads();
        if (loads() && !next.none()) load_visit(next, 0);
        ptx::cp_async_commit();
      }
      done = before;
      before = visit;
      visit = next;
      if (!next.none()) next = visits.after(next);
    }
    __syncthreads();
    if (thread == C::kThreads / 2) pass_turn(f, slot, before, visits.turn_after(before));
  }

  STROBE_DEVICE void run(int last_key) const {
    typename C::Sums sums;
    clear(sums);
    pass(sums);
    const RowsView& view = is_first_warp() ? f.grad_value : f.grad_key;
    if (view.data == nullptr) return;
    const RowAddress rows = grad_key_rows(p, view, s, kv_head);
    if constexpr (C::kHeadDim == C::kValueDim) {  // one text for both
      write_rows<C, typename C::KeyTile>(
          view, rows, first_key, warp_key(), last_key, is_first_warp() ? p.value_dim : p.head_dim,
          is_first_warp() ? p.dropout_scale : p.scale, sums, is_first_warp() ? values() : keys());
    } else if (is_first_warp()) {
      write_rows<C, typename C::ValueTile>(view, rows, first_key, warp_key(), last_key, p.value_dim, p.dropout_scale,
                                           sums, values());
    } else {
      write_rows<C, typename C::KeyTile>(view, rows, first_key, warp_key(), last_key, p.head_dim, p.scale, sums,
                                         keys());
    }
  }
};

/// Rows of packed gradients that belong to no sequence.
STROBE_DEVICE void zero_key_tail(const BackwardParams& f, int kv_head, int first, int last) {
  Sequence none{};
  if (f.grad_key.data) {
    zero_rows(f.grad_key, grad_key_rows(f.attention, f.grad_key, none, kv_head), f.attention.head_dim, first, last);
  }
  if (f.grad_value.data) {
    zero_rows(f.grad_value, grad_key_rows(f.attention, f.grad_value, none, kv_head), f.attention.value_dim, first,
              last);
  }
}

template <class C>
STROBE_DEVICE void backward(const BackwardParams& f) {
  const AttentionParams& p = f.attention;
  // Blocks of lower keys come first: under a causal mask they see most queries, and dQ's turns go by key block.
  const auto [first_head, heads, place] = place_in_groups(f.groups, int(blockIdx.x), f.blocks);
  int block = place / heads, head = first_head + place % heads, b = head / p.kv_heads, stored = p.key_length;
  head %= p.kv_heads;
  if (p.packed_keys) {
    if (!find_packed_tile(p.key_offsets, p.batch, p.key_length, C::kKeyBlock, block, b)) {
      const int end = clamped(read_int(p.key_offsets, p.batch), 0, p.key_length) + block * C::kKeyBlock;
      zero_key_tail(f, head, end, smaller(end + C::kKeyBlock, p.key_length));
      return;
    }
    const int first = clamped(read_int(p.key_offsets, b), 0, p.key_length);
    stored = clamped(read_int(p.key_offsets, b + 1), first, p.key_length) - first;
  }
  const Sequence s = sequence_of(p, b);
  const int first_key = block * C::kKeyBlock;
  const Visits<C> visits(p, s, block, head);
  const BackwardTask<C> task{.f = f,
                             .p = p,
                             .s = s,
                             .visits = visits,
                             .first_key = first_key,
                             .kv_head = head,
                             .slot = first_slot(f, s),
                             .thread = ptx::untraced(int(threadIdx.x)),
                             .memory = u32(ptx::untraced(int(ptx::shared_address(shared_memory))))};
  task.run(smaller(first_key + C::kKeyBlock, stored));
}

}  // namespace strobe::cuda::sm80
