// A consumer: a warpgroup that takes 64 keys of the block through the query tiles that see them. dK and dV stay in its
// registers; scores are made transposed, so that P^T and dS^T are left factors of the next product as they come.
#pragma once

#include "cuda/sm80/backward/epilogue.cuh"
#include "cuda/sm90/backward/grad_query.cuh"
#include "cuda/sm90/backward/hide.cuh"
#include "cuda/sm90/backward/products.cuh"

namespace strobe::cuda::sm90 {

/// What dS^T is made of, in 16 bits, where that is not P^T and registers hold only 16 bits of it.
template <class C, bool = C::kSplitsWeights&& C::kDelaysGradQuery>
struct GradedWeights {};
template <class C>
struct GradedWeights<C, true> {
  typename C::Factor words;
};

template <class C>
struct BackwardConsumer {
  using Element = typename C::Element;

  const sm80::BackwardParams& f;
  BackwardMemory<C> memory;
  const typename C::Visit* told;
  const BackwardItem* items;
  int number;  // of the warpgroup among the consumers

  typename C::Scores s, dp;  // S^T, then P^T; dP^T
  typename C::Factor p, ds;
  GradedWeights<C> graded;
  typename C::Sums grad_key, grad_value;
  typename C::GradQuery grad_query;
  OwedOf<C> owing;     // of the tile before
  TileFacts<C> facts;  // of the thread's queries
  Ring<C::kItems> item_ring;
  Ring<C::kKeyStages> keys;
  Ring<C::kStages> here;  // the tile in work, and its turn at dQ
  Ring<1> stage;          // of dQ
  // How far, in bytes, the warpgroup's parts of tiles lie behind their beginnings: its keys, its queries and its
  // columns of a query tile; for dQ its queries in dS and its columns of the keys. Known to be the same for all lanes.
  u32 keys_at, queries_at, columns_at, grad_rows_at, grad_columns_at, other_grad_columns_at;

  STROBE_DEVICE static u32 uniform(u32 x) { return __shfl_sync(~0u, x, 0); }

  STROBE_DEVICE static void arrive(u32 barrier) {
    __syncwarp();
    if (lane_index() == 0) ptx::mbarrier_arrive(barrier);
  }
  /// The same for the other thread block of the cluster.
  STROBE_DEVICE void arrive_there(u32 barrier) const {
    __syncwarp();
    if (lane_index() == 0) ptx::mbarrier_arrive_cluster(barrier + memory.away);
  }

  template <int kTiles>
  static STROBE_DEVICE void hold(float (&x)[kTiles][4]) {
#pragma unroll
    for (int n = 0; n < 4 * kTiles; ++n) ptx::renew(x[n / 4][n % 4]);
  }
  static STROBE_DEVICE void hold(typename C::Factor& x) {
#pragma unroll
    for (int n = 0; n < 4 * C::kScoreSteps; ++n) ptx::renew(x[n / 4][n % 4]);
  }
  static STROBE_DEVICE void clear(typename C::Sums& x) {
#pragma unroll
    for (int n = 0; n < 4 * C::kSumTiles; ++n) x[0][n / 4][n % 4] = 0.0f;
  }

  /// The warpgroup's number among those of the cluster.
  STROBE_DEVICE int cluster_number() const { return memory.rank * C::kConsumers + number; }
  // The warpgroup's part of the thread block's keys, of the tile's queries where it makes scores, and of the columns of
  // dK and dV: its first ones.
  STROBE_DEVICE int own_key() const { return C::kSharesKeys ? 0 : number * kWarpgroupRows; }
  STROBE_DEVICE int own_query() const { return C::kSharesKeys ? number * C::kScoreQueries : 0; }
  STROBE_DEVICE int own_column() const { return C::kSharesKeys ? number * C::kSumColumns : 0; }
  /// The warp's first key in the thread block.
  STROBE_DEVICE int warp_key() const { return own_key() + warp_index() % 4 * 16; }
  STROBE_DEVICE void find_parts() {
    keys_at = C::kSharesKeys ? 0 : uniform(own_key() * kPanelRowBytes);
    queries_at = C::kSharesKeys ? uniform(own_query() * kPanelRowBytes) : 0;
    columns_at = C::kSharesKeys ? uniform(own_column() / kPanel * C::kQueryPanelBytes) : 0;
    grad_rows_at = C::kQueryTile > kWarpgroupRows ? uniform(number * C::kKeyPanelBytes) : 0;
    grad_columns_at =
        C::kDim > C::kGradColumns ? uniform(cluster_number() * C::kGradColumns / kPanel * C::kKeyPanelBytes) : 0;
    other_grad_columns_at = C::kCluster > 1 ? uniform(number * C::kGradColumns / kPanel * C::kKeyPanelBytes) : 0;
  }

  STROBE_DEVICE const BackwardItem& item() const { return items[item_ring.stage()]; }

  /// Gives what position hides a value.
  STROBE_DEVICE void hide(const typename C::Visit& visit, float value, typename C::Scores& x) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int j = item().first_key + warp_key() + 8 * half + lane_index() / 4,
                near = j - visit.first_row - own_query();
      const int base = 2 * (lane_index() % 4), from = near - item().highest - base;
      const int to = j < item().s.keys ? smaller(near - item().lowest + 1, visit.rows - own_query()) - base : -base;
#pragma unroll
      for (int n = 0; n < 2 * C::kScoreTiles; ++n) {
        const int column = n / 2 * 8 + n % 2;
        if (column < from || column >= to) x[n / 2][2 * half + n % 2] = value;
      }
    }
  }

  // Where LSE and delta of the thread's queries lie.
  STROBE_DEVICE u32 own_facts() const { return (own_query() + lane_index() % 4 * 2) * 4; }
  STROBE_DEVICE void read_facts(int stage) {
    facts.read(memory.lse(stage) + own_facts(), memory.delta(stage) + own_facts());
  }

  /// P^T of queries 8 t and following.
  STROBE_DEVICE void weigh(float unit, u32 lse, int t) {
    const float2 shift = facts.lse(lse, t);
#pragma unroll
    for (int e = 0; e < 4; ++e) s[t][e] = ptx::ex2(fmaf(s[t][e], unit, e % 2 == 0 ? -shift.x : -shift.y));
  }
  STROBE_DEVICE void weigh(float unit) {
    const u32 lse = memory.lse(here.stage()) + own_facts();
#pragma unroll
    for (int t = 0; t < C::kScoreTiles; ++t) weigh(unit, lse, t);
  }

  /// Step k of the warpgroup's scores, a left factor, to a tile of [keys][queries] in shared memory.
  STROBE_DEVICE void store_step(u32 tile, int k, const u32 (&words)[4]) const {
    const int row = warp_key() + lane_index() % 16, first = own_query() / 16;
    const int place = (2 * ((first + k) % 4) + lane_index() / 16) ^ (row & 7);
    ptx::stmatrix_x4(tile + (first + k) / 4 * C::kKeyPanelBytes + row * kPanelRowBytes + place * kChunkBytes, words);
  }

  /// P^T of step k as a left factor.
  STROBE_DEVICE void take_weights(int k, u32 (&words)[4]) const {
    if constexpr (C::kSplitsWeights) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float(&pair)[4] = s[2 * k + n / 2];
        words[n] = SplitWeight<Element>::given(pair[n % 2 * 2], pair[n % 2 * 2 + 1]);
      }
    } else {
      left_factor<Element>(&s[2 * k], words);
    }
  }
  STROBE_DEVICE void take_graded_weights(int k) {
    if constexpr (C::kSplitsWeights && C::kDelaysGradQuery) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float(&pair)[4] = s[2 * k + n / 2];
        graded.words[k][n] = SplitWeight<Element>::graded(pair[n % 2 * 2], pair[n % 2 * 2 + 1]);
      }
    }
  }

  STROBE_DEVICE void store_weights(int k) const {
    u32 words[4];
    take_weights(k, words);
    store_step(memory.weights(here.stage()), k, words);
  }

  /// P^T of queries 8 (2 k + t) and following, as grade() wants it: where registers are short, only the left factor is
  /// kept of it.
  STROBE_DEVICE float weight(int k, int t, int e) const {
    if constexpr (C::kSplitsWeights && !C::kDelaysGradQuery) {
      return Element::high(SplitWeight<Element>::word(s[2 * k + t][e]));
    } else if constexpr (C::kSplitsWeights) {
      const u32 pair = graded.words[k][2 * t + e / 2];
      return e % 2 == 0 ? Element::low(pair) : Element::high(pair);
    } else if constexpr (C::kDelaysGradQuery) {
      const u32 pair = p[k][2 * t + e / 2];
      return e % 2 == 0 ? Element::low(pair) : Element::high(pair);
    } else {
      return s[2 * k + t][e];
    }
  }

  /// dS^T = P^T (dP^T - delta), as a left factor and to shared memory.
  STROBE_DEVICE void grade() {
    const u32 delta = memory.delta(here.stage()) + own_facts();
#pragma unroll
    for (int k = 0; k < C::kScoreSteps; ++k) {
      float grads[2][4];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const float2 shift = facts.delta(delta, 2 * k + t);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (C::kDrops) {
            const float given = weight(k, t, e);
            const bool dropped = (__float_as_int(given) & 0x80000000) != 0;
            const float grad = dropped ? 0.0f : dp[2 * k + t][e] * f.attention.dropout_scale;
            grads[t][e] = fabsf(given) * (grad - (e % 2 == 0 ? shift.x : shift.y));
          } else {
            grads[t][e] = weight(k, t, e) * (dp[2 * k + t][e] - (e % 2 == 0 ? shift.x : shift.y));
          }
        }
      }
      left_factor<Element>(grads, ds[k]);
      store_step(memory.grad_scores(here.stage()), k, ds[k]);
      if (k == C::kScoreSteps / 2 - 1) owing.template give<GivingPlace::kAmongGrades>(grad_query);
    }
    ptx::fence_proxy_async();
  }

  template <int kBegin = 0, int kEnd = C::kDim / 16>
  STROBE_DEVICE void start_scores(int stage) {
    start_score_product<C, kBegin, kEnd>(memory.keys(keys.stage()) + keys_at, memory.queries(stage) + queries_at, s);
    ptx::wgmma_commit_group();
  }
  /// The stage of the gradients of outputs of the tile `here`.
  STROBE_DEVICE Ring<C::kGradOutputStages> grad_output() const { return {here.count}; }
  STROBE_DEVICE void await_grad_output() const {
    wait_for(memory.grad_output_full(grad_output().stage()), grad_output().parity());
  }
  STROBE_DEVICE void start_grad_weights() {
    const u32 grad_outputs = memory.grad_outputs(grad_output().stage()) + queries_at;
    start_score_product<C>(memory.values(keys.stage()) + keys_at, grad_outputs, dp);
    ptx::wgmma_commit_group();
  }
  STROBE_DEVICE void start_grad_value() {
    const u32 grad_outputs = memory.grad_outputs(grad_output().stage()) + columns_at;
    if constexpr (C::kSharesKeys) {
      start_key_gradient<C>(memory.weights(here.stage()), grad_outputs, grad_value);
    } else {
      start_key_gradient<C>(p, grad_outputs, grad_value);
    }
    ptx::wgmma_commit_group();
  }
  STROBE_DEVICE void start_grad_query(int stage) {
    start_query_gradient<C>(memory.grad_scores(stage) + grad_rows_at, memory.keys(keys.stage()) + grad_columns_at,
                            grad_query);
    ptx::wgmma_commit_group();
  }
  /// The other thread block's keys' part.
  STROBE_DEVICE void start_other_grad_query(int stage) {
    start_query_gradient<C, true>(memory.other_grad_scores(stage),
                                  memory.other_keys(keys.stage()) + other_grad_columns_at, grad_query);
    ptx::wgmma_commit_group();
  }
  /// Has dS^T of the tile `here` copied to the other thread block, and lets its dS^T come. One thread.
  STROBE_DEVICE void send_grad_scores() const {
    const int stage = here.stage();
    wait_for(memory.other_graded(stage), here.parity() ^ 1);
    ptx::mbarrier_arrive_expect_tx(memory.graded(stage), C::kGradScoreBytes);
    ptx::cp_async_bulk_copy_to_cluster(memory.other_grad_scores(stage) + memory.away, memory.grad_scores(stage),
                                       memory.graded(stage) + memory.away, C::kGradScoreBytes);
  }
  template <int kBegin = 0, int kEnd = C::kSteps>
  STROBE_DEVICE void start_grad_key() {
    const u32 queries = memory.queries(here.stage()) + columns_at;
    if constexpr (C::kDelaysGradQuery) {
      start_key_gradient<C>(ds, queries, grad_key);
    } else {
      start_key_gradient<C, kBegin, kEnd>(memory.grad_scores(here.stage()) + keys_at, queries, grad_key);
    }
    ptx::wgmma_commit_group();
  }

  STROBE_DEVICE const typename C::Visit& visit_of(const Ring<C::kStages>& tile) const {
    return told[tile.count % kBackwardVisits];
  }

  STROBE_DEVICE void await_place(const Ring<C::kStages>& tile, bool last) const {
    wait_for(memory.stage_empty(), stage.parity() ^ 1);
    if (last) wait_for(memory.turn_come(tile.stage()), tile.parity());
  }

  /// Gives away dQ of a tile: to its place in shared memory, or, by the last block that adds, to global memory.
  STROBE_DEVICE void give_away(const Ring<C::kStages>& tile, bool last) {
    if (f.grad_query.data != nullptr) {
      await_place(tile, last);
      const GradQueryShare<C> share{f, visit_of(tile), cluster_number()};
      if (last) {
        share.finish(grad_query);
      } else {
        share.stage(memory.grad_query(), grad_query);
        ptx::fence_proxy_async();
      }
      arrive(memory.added(stage.count % 2));
    }
    stage.advance();
  }

  /// Begins to give away dQ of the tile `here`, where consumers add it themselves; all of it if no tile follows.
  STROBE_DEVICE void begin_giving(const typename C::Visit& visit, bool last, bool more) {
    owing.owed = false;
    if (f.grad_query.data == nullptr) return;
    wait_for(memory.turn_come(here.stage()), here.parity());
    const GradQueryShare<C> share{f, visit, cluster_number()};
    if (last) {
      share.finish(grad_query);
    } else {
      owing.sums = share.sums();
      owing.stores = visit.first;
      owing.owed = more;
      if (!more) owing.give_all(grad_query);
      owing.template give<GivingPlace::kThere>(grad_query);
    }
    if (!owing.owed) arrive(memory.added(here.stage()));
  }

  STROBE_DEVICE ScorePlace place_of(const typename C::Visit& visit) const {
    const int query = visit.first_row + own_query(), key = item().first_key + warp_key();
    return {query + 2 * (lane_index() % 4), key + lane_index() / 4, query, key};
  }

  STROBE_DEVICE StagedRows<C> staged_rows() const { return {memory.staged(number * 4 + warp_index() % 4)}; }
  /// Asks for the bias or the mask of a tile that has been told of.
  STROBE_DEVICE void ask_ahead(const Ring<C::kStages>& tile) const {
    if constexpr (C::kStagedRowBytes > 0) {
      const typename C::Visit& visit = visit_of(tile);
      staged_rows().ask(f.attention, item().s, visit.head, place_of(visit));
    }
  }

  /// The same with options, and what is hidden.
  STROBE_DEVICE void weigh_with_options(const typename C::Visit& visit, bool hides, HiddenScores<C>& hidden) {
    const ScorePlace place = place_of(visit);
    const StagedRows<C> staged = staged_rows();
    weigh_edited<C>(f.attention, item().s, visit.head, visit.slope, place, staged,
                    memory.lse(here.stage()) + own_facts(), s);
    if (!hides) return;
    hidden.find(f.attention, item(), visit, place, staged);
    hidden.clear(s);
  }

  /// Steps of dP^T from k on, and between them exponentials, of which every other tile is a step of P^T.
  template <int k = 0>
  STROBE_DEVICE void start_grad_weights_and_weigh(float unit) {
    constexpr int kSteps = C::kDim / 16, kHalf = kSteps / 2 - 1;
    const u32 grad_outputs = memory.grad_outputs(grad_output().stage()) + queries_at;
    start_score_product<C, k, k + 1>(memory.values(keys.stage()) + keys_at, grad_outputs, dp);
#pragma unroll
    for (int t = k * C::kScoreTiles / kSteps; t < (k + 1) * C::kScoreTiles / kSteps; ++t) {
      weigh(unit, memory.lse(here.stage()) + own_facts(), t);
#pragma unroll
      for (int e = 0; e < 4; ++e) ptx::renew(s[t][e]);
      if (C::kSharesKeys && t % 2 == 1) store_weights(t / 2);
    }
    if constexpr (k == kHalf) owing.template give<GivingPlace::kAmongExponentials>(grad_query);
    if constexpr (k + 1 < kSteps) {
      start_grad_weights_and_weigh<k + 1>(unit);
    } else {
      ptx::wgmma_commit_group();
    }
  }

  /// Starts dP^T of the tile `here`, whose S^T is there, and makes its P^T meanwhile, until both are there; where keys
  /// are shared, starts dV as well.
  STROBE_DEVICE void weigh_while_dp(float unit) {
    const typename C::Visit& visit = visit_of(here);
    bool edge = visit.edge;
    HiddenScores<C> hidden;
    await_grad_output();
    if constexpr (C::kInterleaves) {
      if (edge) hide(visit, minus_infinity(), s);
      ptx::wgmma_fence();
      start_grad_weights_and_weigh(unit);
    } else {
      ptx::wgmma_fence();
      start_grad_weights();
      owing.template give<GivingPlace::kAmongExponentials>(grad_query);
    }
    owing.template give<GivingPlace::kBehindExponentials>(grad_query);
    if constexpr (C::kFeatures != 0) {
      if (C::kHidesByData) edge |= !visit.whole;
      weigh_with_options(visit, edge, hidden);
    } else if constexpr (!C::kInterleaves) {
      if (edge) hide(visit, minus_infinity(), s);
      weigh(unit);
    }
    hold(s);
    if constexpr (C::kSharesKeys) {
      if constexpr (!C::kInterleaves) {
#pragma unroll
        for (int k = 0; k < C::kScoreSteps; ++k) store_weights(k);
      }
      ptx::fence_proxy_async();
      ptx::bar_sync(2, C::kConsumerThreads);  // P of all queries is there
      hold(grad_value[0]);
      ptx::wgmma_fence();
      start_grad_value();
      owing.template give<GivingPlace::kBesideGradValue>(grad_query);
    }
    // ptxas 13.0 would move the exponentials behind the wait for the product, but not across this loop.
    await_grad_output();
    ptx::wgmma_wait_group<C::kSharesKeys ? 1 : 0>();
    hold(dp);
    if (edge) {
      if constexpr (C::kFeatures != 0) {
        hidden.clear(dp);
      } else {
        hide(visit, 0.0f, dp);
      }
    }
    if constexpr (!C::kSharesKeys) {
#pragma unroll
      for (int k = 0; k < C::kScoreSteps; ++k) take_weights(k, p[k]);
#pragma unroll
      for (int k = 0; k < C::kScoreSteps; ++k) take_graded_weights(k);
    }
  }

  /// One tile, whose S^T is there already; if there is a next tile, its is when this returns. (After the last tile the
  /// product is made from what lies there, and nobody looks at it: ptxas 13.0 serialises products that stand in a
  /// branch.) Returns whether there is a next tile.
  STROBE_DEVICE bool step(float unit) {
    const typename C::Visit& visit = visit_of(here);
    const bool last = visit.last, more = visit.more;
    Ring<C::kStages> ahead = here;
    ahead.advance();
    weigh_while_dp(unit);
    hold(p);
    hold(grad_value[0]);
    ptx::wgmma_fence();
    start_grad_value();
    grade();
    ptx::bar_sync(1, C::kConsumerThreads);  // dS of all queries and keys is there
    hold(grad_key[0]);
    ptx::wgmma_fence();
    start_grad_query(here.stage());
    start_grad_key<0, C::kSteps / 2>();
    ptx::wgmma_wait_group<1>();
    hold(grad_value[0]);
    hold(grad_query);
    hold(p);
    arrive(memory.grad_output_empty(here.stage()));
    give_away(here, last);
    start_grad_key<C::kSteps / 2, C::kSteps>();
    if (more) wait_for(memory.query_full(ahead.stage()), ahead.parity());
    start_scores(ahead.stage());
    if (more) ask_ahead(ahead);
    ptx::wgmma_wait_group<0>();
    hold(s);
    hold(grad_key[0]);
    arrive(memory.query_empty(here.stage()));
    here = ahead;
    return more;
  }

  /// The same where thread blocks share keys: dQ is made of their own first, while dS^T of the others comes.
  STROBE_DEVICE bool shared_step(float unit) {
    const typename C::Visit& visit = visit_of(here);
    const bool last = visit.last, more = visit.more;
    Ring<C::kStages> before = here, ahead = here;
    before.advance(-1);
    ahead.advance();
    weigh_while_dp(unit);
    grade();
    ptx::bar_sync(1, C::kConsumerThreads);              // dS of all queries is there
    if (threadIdx.x == kWarpgroup) send_grad_scores();  // the first of the consumers
    hold(grad_key[0]);
    ptx::wgmma_fence();
    start_grad_key();
    owing.template give<GivingPlace::kBesideGradKey>(grad_query);
    if (owing.owed) arrive(memory.added(before.stage()));
    start_grad_query(here.stage());
    ptx::wgmma_wait_group<2>();
    hold(grad_value[0]);
    arrive(memory.grad_output_empty(grad_output().stage()));
    wait_for(memory.graded(here.stage()), here.parity());
    ptx::wgmma_fence();
    start_other_grad_query(here.stage());
    if (more) wait_for(memory.query_full(ahead.stage()), ahead.parity());
    start_scores<0, C::kDim / 32>(ahead.stage());
    if (more) read_facts(ahead.stage());
    ptx::wgmma_wait_group<1>();
    hold(grad_key[0]);
    hold(grad_query);
    arrive_there(memory.other_graded(here.stage()));
    begin_giving(visit, last, more);
    ptx::wgmma_fence();
    start_scores<C::kDim / 32, C::kDim / 16>(ahead.stage());
    owing.template give<GivingPlace::kBesideScores>(grad_query);
    ptx::wgmma_wait_group<0>();
    hold(s);
    arrive(memory.query_empty(here.stage()));
    here = ahead;
    return more;
  }

  /// The same with dQ of the tile before; P^T and dP^T are there already, and those of the next tile when this returns.
  /// The last tile makes its own dQ as well.
  template <bool kFirst, bool kLast>
  STROBE_DEVICE void delayed_step(float unit) {
    Ring<C::kStages> before = here, ahead = here;
    before.advance(-1);
    ahead.advance();
    if constexpr (!kFirst) wait_for(memory.graded(before.stage()), before.parity());
    hold(p);
    hold(dp);
    hold(grad_value[0]);
    ptx::wgmma_fence();
    if constexpr (!kFirst) start_grad_query(before.stage());
    start_grad_value();
    grade();
    if constexpr (!kFirst) {
      ptx::wgmma_wait_group<1>();
      hold(grad_query);
      give_away(before, visit_of(before).last);
    }
    ptx::wgmma_wait_group<0>();
    hold(grad_value[0]);
    hold(p);
    hold(ds);
    arrive(memory.grad_output_empty(here.stage()));
    arrive(memory.graded(here.stage()));
    hold(grad_key[0]);
    ptx::wgmma_fence();
    start_grad_key();
    if constexpr (kLast) {
      wait_for(memory.graded(here.stage()), here.parity());
      start_grad_query(here.stage());
    } else {
      wait_for(memory.query_full(ahead.stage()), ahead.parity());
      start_scores(ahead.stage());
      ask_ahead(ahead);
    }
    ptx::wgmma_wait_group<0>();
    hold(grad_key[0]);
    hold(ds);
    arrive(memory.query_empty(here.stage()));
    if constexpr (kLast) {
      hold(grad_query);
      give_away(here, visit_of(here).last);
      here = ahead;
    } else {
      hold(s);
      here = ahead;
      weigh_while_dp(unit);
    }
  }
  STROBE_DEVICE void delayed_steps(float unit) {
    weigh_while_dp(unit);
    if (!visit_of(here).more) return delayed_step<true, true>(unit);
    delayed_step<true, false>(unit);
    while (visit_of(here).more) delayed_step<false, false>(unit);
    delayed_step<false, true>(unit);
  }

  STROBE_DEVICE void pass() {
    const float unit = f.attention.scale * kLog2E;
    clear(grad_key);
    clear(grad_value);
    wait_for(memory.keys_full(keys.stage()), keys.parity());
    if constexpr (C::kHidesByData) {
      const int warp = number * 4 + warp_index() % 4;
      clear_unseen_keys<C>(f.attention, item(), item().first_key, warp, memory.keys(keys.stage()));
      if constexpr (C::kCluster > 1) {
        wait_for(memory.values_full(keys.stage()), keys.parity());
        clear_unseen_keys<C, C::kOwnPanels>(f.attention, item(), other_first_key<C>(item(), memory.rank), warp,
                                            memory.other_keys(keys.stage()));
      }
      ptx::bar_sync(1, C::kConsumerThreads);
    }
    wait_for(memory.query_full(here.stage()), here.parity());
    ptx::wgmma_fence();
    start_scores(here.stage());
    ask_ahead(here);
    read_facts(here.stage());
    ptx::wgmma_wait_group<0>();
    hold(s);
    wait_for(memory.values_full(keys.stage()), keys.parity());
    if constexpr (C::kDelaysGradQuery) {
      delayed_steps(unit);
    } else if constexpr (C::kSharesKeys) {
      while (shared_step(unit)) {
      }
    } else {
      while (step(unit)) {
      }
    }
  }

  STROBE_DEVICE RowAddress rows_of(const RowsView& view) const {
    return sm80::grad_key_rows(f.attention, view, item().s, item().kv_head);
  }

  /// The warpgroup's part of dK or dV, by way of `stage`.
  STROBE_DEVICE void write(const RowsView& view, int dims, float factor, const typename C::Sums& sums,
                           u32 stage) const {
    if (view.data == nullptr) return;
    using Stage = Tile<Element, C::kOwnKeys, C::kSumColumns>;
    RowAddress rows = rows_of(view);
    rows.data += own_column() * size_of(view.type);
    sm80::write_rows<C, Stage>(view, rows, item().first_key, warp_key(), item().last_key, dims - own_column(), factor,
                               sums, stage + own_column() / C::kSumColumns * Stage::kBytes);
    __syncwarp();  // before the warp's next rows come to the same place
  }

  /// Keys without gradients.
  STROBE_DEVICE void write_zeros(const RowsView& view, int dims) const {
    if (view.data == nullptr) return;
    const int thread = int(threadIdx.x) % C::kConsumerThreads;
    const RowAddress rows = rows_of(view);
    for (int row = item().first_key + thread / kWarpLanes; row < item().last_key;
         row += C::kConsumerThreads / kWarpLanes) {
      char* const to = const_cast<char*>(rows(row));
      for (int d = lane_index(); d < dims; d += kWarpLanes) store_float(to, view.type, d, 0.0f);
    }
  }

  STROBE_DEVICE void run() {
    find_parts();
    for (;; item_ring.advance()) {
      wait_for(memory.item_full(item_ring.stage()), item_ring.parity());
      if (!item().there) return;
      if (item().visited) {
        pass();
        if (C::kFreesKeysEarly) arrive(memory.keys_empty(keys.stage()));
        if constexpr (C::kCluster > 1) {  // the other thread block has taken dS^T of the last tile, and made dQ of it
          Ring<C::kStages> before = here;
          before.advance(-1);
          wait_for(memory.other_graded(before.stage()), before.parity());
        }
        ptx::bar_sync(1, C::kConsumerThreads);  // nobody reads keys, values, P^T and dS^T any more
        write(f.grad_value, f.attention.value_dim, C::kDrops ? f.attention.dropout_scale : 1.0f, grad_value,
              memory.written_values(keys.stage()));
        write(f.grad_key, f.attention.head_dim, f.attention.scale, grad_key, memory.written_keys(keys.stage()));
        if (C::kFreesKeysEarly) {
          ptx::bar_sync(1, C::kConsumerThreads);  // nor what was written
        } else {
          ptx::fence_proxy_async();
          arrive(memory.keys_empty(keys.stage()));
        }
        keys.advance();
      } else {
        write_zeros(f.grad_key, f.attention.head_dim);
        write_zeros(f.grad_value, f.attention.value_dim);
      }
      arrive(memory.item_empty(item_ring.stage()));
    }
  }
};

}  // namespace strobe::cuda::sm90
