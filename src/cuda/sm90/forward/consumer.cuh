// A consumer: a warpgroup that takes 64 queries through the keys. While the tensor unit adds one block's values, the
// next block's scores become weights.
#pragma once

#include "cuda/sm90/forward/edits.cuh"
#include "cuda/sm90/forward/epilogue.cuh"
#include "cuda/sm90/forward/hide.cuh"
#include "cuda/sm90/forward/producer.cuh"
#include "cuda/sm90/forward/products.cuh"
#include "cuda/sm90/forward/rescue.cuh"

namespace strobe::cuda::sm90 {

/// Where a consumer is: in which task, with which rows, and at which block of those that they see.
struct Place {
  int stage, block, end;
  bool simple;
};

template <class C>
struct Consumer {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  int number;  // of the warpgroup among the consumers
  Ring<C::kTasks> task_ring;
  Ring<C::kQueryStages> query;
  Ring<C::kStages> keys, values;
  Ring<1> output;
  Ring<1> bias;
  BlockMask<C> mask;
  int owed = 0;  // blocks of values behind the one in work that nobody will read, to be let go

  STROBE_DEVICE Consumer(const ForwardParams& params, SharedMemory<C> shared, Task<C>* all_tasks, int consumer)
      : f(params), memory(shared), tasks(all_tasks), number(consumer) {
    query.advance(number);
    if (number == C::kConsumers - 1) pass_turn();
  }

  // Addresses of tiles in work, known to the compiler to be the same for all lanes.
  STROBE_DEVICE static u32 uniform(u32 x) { return __shfl_sync(~0u, x, 0); }
  STROBE_DEVICE u32 query_tile() const { return uniform(memory.query(query.stage())); }
  STROBE_DEVICE u32 key_tile() const { return uniform(memory.keys(keys.stage())); }
  STROBE_DEVICE u32 value_tile() const { return uniform(memory.values(values.stage())); }

  /// What scores are multiplied by, in powers of two. Edited ones are in powers of two already.
  STROBE_DEVICE float unit() const { return C::kEdits ? 1.0f : f.attention.scale * kLog2E; }

  STROBE_DEVICE static void release(u32 barrier) {
    __syncwarp();
    if (lane_index() == 0) ptx::mbarrier_arrive(barrier);
  }

  STROBE_DEVICE void hide(const Place& now, typename C::Scores& s) const {
    hide_keys<C>(f, task_of(now), number, now.block, mask, s);
  }

  /// Rows of V behind the sequence's end may hold anything, NaN too, and a weight of zero would not silence it.
  STROBE_DEVICE void clear_tail(int left) const {
    wait_for(memory.values_full(values.stage()), values.parity());
    const u32 tile = value_tile();
    for (int n = int(threadIdx.x) % kWarpgroup; n < (C::kKeyBlock - left) * C::kPanels * 8; n += kWarpgroup) {
      const int row = left + n / (C::kPanels * 8), chunk = n % (C::kPanels * 8);
      ptx::st_shared_16(
          tile + chunk / 8 * C::kKeyBlock * kPanelRowBytes + row * kPanelRowBytes + chunk % 8 * kChunkBytes,
          make_uint4(0, 0, 0, 0));
    }
    ptx::fence_proxy_async();
    ptx::bar_sync(1 + number, kWarpgroup);
  }

  static STROBE_DEVICE void hold(typename C::Scores& s) {
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) ptx::renew(s[n / 4][n % 4]);
  }
  static STROBE_DEVICE void hold(typename C::Outputs& o) {
#pragma unroll
    for (int n = 0; n < 4 * C::kValueTiles; ++n) ptx::renew(o[n / 32][n / 4 % 8][n % 4]);
  }
  static STROBE_DEVICE void hold(typename C::Weights& p) {
#pragma unroll
    for (int n = 0; n < 4 * C::kSteps; ++n) ptx::renew(p[n / 4][n % 4]);
  }

  static STROBE_DEVICE void clear(typename C::Outputs& o) {
#pragma unroll
    for (int n = 0; n < 4 * C::kValueTiles; ++n) o[n / 32][n / 4 % 8][n % 4] = 0.0f;
  }

  static STROBE_DEVICE void pack(const typename C::Scores& s, typename C::Weights& p) {
#pragma unroll
    for (int k = 0; k < C::kSteps; ++k) left_factor<typename C::Element>(&s[2 * k], p[k]);
  }

  STROBE_DEVICE void wait_for_keys() const { wait_for(memory.keys_full(keys.stage()), keys.parity()); }
  STROBE_DEVICE void release_keys() {
    release(memory.keys_empty(keys.stage()));
    keys.advance();
  }
  STROBE_DEVICE void release_bias() {
    if (f.bias_rows == 0) return;
    release(memory.bias_empty(number));
    bias.advance();
  }
  STROBE_DEVICE void release_query() {
    release(memory.query_empty(query.stage()));
    query.advance(C::kConsumers);
  }
  STROBE_DEVICE void release_values() {
    release(memory.values_empty(values.stage()));
    values.advance();
  }
  STROBE_DEVICE void release_owed_values() {
    for (; owed > 0; --owed) {
      wait_for(memory.values_full(values.stage()), values.parity());
      release_values();
    }
  }
  STROBE_DEVICE void release_task(const Place& place) const { release(memory.task_empty(place.stage)); }

  STROBE_DEVICE const Task<C>& task_of(const Place& place) const { return tasks[place.stage]; }
  STROBE_DEVICE const ConsumerRows& rows_of(const Place& place) const { return task_of(place).rows[number]; }

  // Two consumers take turns at handing products to the tensor unit, one turn for every block of a task whether its
  // rows see it or not: while one's products are at work, the other has its softmax. Three find no gaps to fill that
  // would be worth the waiting.
  static constexpr int kTurnBarriers = 4, kTurnThreads = 2 * kWarpgroup;
  STROBE_DEVICE void wait_for_turn() const {
    if constexpr (C::kTakesTurns) ptx::bar_sync(kTurnBarriers + number, kTurnThreads);
  }
  STROBE_DEVICE void pass_turn() const {
    if constexpr (C::kTakesTurns) ptx::bar_arrive(kTurnBarriers + (number + 1) % C::kConsumers, kTurnThreads);
  }

  /// Looks at the next task. Returns false if there are no more.
  STROBE_DEVICE bool open(Place& place) {
    wait_for(memory.task_full(task_ring.stage()), task_ring.parity());
    place.stage = task_ring.stage();
    const ConsumerRows& rows = rows_of(place);
    if (!rows.there) return false;
    place = {place.stage, rows.top, rows.end, rows.simple};
    task_ring.advance();
    return true;
  }

  /// Lets so many blocks go unread. Their values are owed.
  STROBE_DEVICE void skip(int blocks) {
    for (; blocks > 0; --blocks) {
      wait_for_keys();
      wait_for_turn();
      pass_turn();
      release_keys();
      ++owed;
    }
  }
  STROBE_DEVICE void skip_with_values(int blocks) {
    for (; blocks > 0; --blocks) {
      skip(1);
      release_owed_values();
    }
  }

  /// Before the last block's values are added: goes on to the next task's first block if that can follow at once.
  /// Values behind those in work can be owed only as long as there are stages for more, or the others would wait for
  /// us.
  STROBE_DEVICE bool reach_next_task(const Place& now, Place& next, bool& opened) {
    constexpr int kMostOwed = C::kStages - 1;
    opened = (now.simple || rows_of(now).behind <= kMostOwed) && open(next);
    if (!opened) return false;
    if (now.simple && next.simple) return true;
    if (rows_of(next).blocks() == 0) return false;
    const int unseen = rows_of(now).behind + rows_of(next).before;
    if (unseen > kMostOwed) return false;
    skip(unseen);
    return true;
  }

  /// Goes on to a task of which the warpgroup's rows see a key. Rows of those before see none and are written here.
  STROBE_DEVICE bool take_task(Place& now, bool opened) {
    for (; opened || open(now); opened = false) {
      skip_with_values(rows_of(now).before);
      if (rows_of(now).blocks() > 0) return true;
      const Task<C>& task = task_of(now);
      if (task.blocks() > 0) {
        wait_for(memory.query_full(query.stage()), query.parity());
        release_query();
      }
      for (int n = 0; n < heads_of_tile<C>(f); ++n) {
        clear_rows(f.attention, outputs_of(task), task.head + n, rows_of(now).first_row, rows_of(now).last_row,
                   sink_of(f.attention, task.head + n));
      }
      clear_unused_rows(now);
      release_task(now);
    }
    return false;
  }
  STROBE_DEVICE void clear_unused_rows(const Place& now) const {
    const ConsumerRows& rows = rows_of(now);
    if (rows.last_row >= rows.last_stored) [[likely]]
      return;
    const Task<C>& task = task_of(now);
    for (int n = 0; n < heads_of_tile<C>(f); ++n) {
      clear_rows(f.attention, outputs_of(task), task.head + n, rows.last_row, rows.last_stored, minus_infinity());
    }
  }

  STROBE_DEVICE void start_adding(typename C::Weights& p, typename C::Outputs& o) const {
    wait_for(memory.values_full(values.stage()), values.parity());
    ptx::wgmma_fence();
    start_outputs<C>(p, value_tile(), o);
    ptx::wgmma_commit_group();
  }

  /// Whether every row sees every key of the block.
  STROBE_DEVICE bool all_see(const Place& now) const {
    return sees_all_keys<C>(f.attention, task_of(now), number, now.block);
  }

  /// In the warpgroup's turn: starts a task's first scores.
  STROBE_DEVICE void start_task(typename C::Scores& s) const {
    wait_for(memory.query_full(query.stage()), query.parity());
    wait_for_keys();
    wait_for_turn();
    ptx::wgmma_fence();
    start_scores<C>(query_tile(), key_tile(), s);
    ptx::wgmma_commit_group();
  }

  STROBE_DEVICE EditPlace edit_place(const Place& now) const {
    const int warp_row = rows_of(now).first_row + warp_index() % 4 * 16, first_key = now.block * C::kKeyBlock;
    return {warp_row + lane_index() / 4, first_key + 2 * (lane_index() % 4), warp_row, first_key};
  }

  /// Asks for the mask of a block.
  STROBE_DEVICE void load_ahead(const Place& place) {
    if constexpr (C::kFeatures == kMask) {
      if constexpr (BlockMask<C>::kAhead) {
        mask.load(f.attention, task_of(place), edit_place(place).warp_row, place.block);
      }
    }
  }

  /// Whether the warp's rows have origins against which a block's weights may be taken at once.
  STROBE_DEVICE bool settled(const Softmax<C>& softmax) const {
    if constexpr (C::kFeatures == kSoftcap) return caps_quickly(f.softcap, softmax.origin);
    return softmax.settled();
  }

  /// A block's products to weights, where scores are edited. `quick`: rows are settled and see all keys; then the
  /// maximum is looked for only if weights turn out too large. Returns whether origins moved.
  STROBE_DEVICE bool weigh_edited(const Place& now, bool quick, Softmax<C>& softmax, typename C::Scores& s,
                                  float (&total)[2]) {
    const Task<C>& task = task_of(now);
    const EditPlace place = edit_place(now);
    BlockBias<C> block_bias;
    if constexpr (C::kStagesBias) {
      if (f.bias_rows > 0) wait_for(memory.bias_full(number), bias.parity());
      block_bias = BlockBias<C>::at(memory.bias(number), f.bias_rows == 1);
    }
    if (quick && is_quick<C>(f, task, place)) {
      weigh_quickly<C>(f, task, place, softmax.origin, block_bias, s, total);
      if (!Softmax<C>::exceeds(most_weights<C>(), total)) return false;
      recompute_scores<C>(query_tile(), key_tile(), s);
    }
    edit_scores<C>(f, task, place, block_bias, s);
    if (!all_see(now)) hide(now, s);
    const bool moved = softmax.follow(1.0f, s);
    softmax.shift(s);
    softmax.weigh_shifted(s, total);
    return moved;
  }

  /// A task's first scores, which are there, to weights. Returns whether all rows have an origin.
  STROBE_DEVICE bool weigh_first(const Place& now, Softmax<C>& softmax, typename C::Scores& s) {
    hold(s);
    float total[2];
    if constexpr (C::kEdits) {
      softmax = {};
      weigh_edited(now, false, softmax, s, total);
    } else {
      if (!all_see(now)) hide(now, s);
      softmax.begin(s);
      softmax.weigh(unit(), s, total);
    }
    // Never, but for NaN. ptxas 13.0 would move the exponentials behind the wait for the product, but not across this.
    if (Softmax<C>::overflows(total)) ptx::nanosleep(0);
    softmax.add(total);
    if constexpr (C::kStagesBias) release_bias();
    release_keys();
    return settled(softmax);
  }

  /// The blocks of a task down to the last one that the rows see, whose weights are in `p` when this returns and whose
  /// values are still to be added.
  STROBE_DEVICE void compute(Place& now, bool trusted, Softmax<C>& softmax, typename C::Scores& s,
                             typename C::Weights& p, typename C::Outputs& o) {
    const u32 queries = query_tile();
    float total[2];
    now.block = task_of(now).after(now.block);
    if (now.block > now.end) {
      load_ahead(now);
      wait_for_keys();
    }
    bool next_all = false;  // and the next block, where they are looked up
    int next = now.block;
    if constexpr (C::kSurveys) next_all = now.block > now.end && all_see(now);
    while (now.block > now.end) {
      const bool all = C::kSurveys ? next_all : all_see(now);
      hold(o);
      hold(p);
      wait_for_turn();
      ptx::wgmma_fence();
      start_scores<C>(queries, key_tile(), s);
      ptx::wgmma_commit_group();
      start_adding(p, o);
      pass_turn();
      if constexpr (C::kSurveys) {  // while the product is under way
        next = task_of(now).after(now.block);
        next_all = next > now.end && all_see({now.stage, next, now.end});
      }
      ptx::wgmma_wait_group<1>();
      hold(s);
      bool quick = (all || C::kFeatures == kMask) && trusted, moved = false;
      if constexpr (C::kEdits) {
        moved = weigh_edited(now, quick, softmax, s, total);
        if (moved || !trusted) trusted = settled(softmax);
      } else {
        if (quick) {
          if constexpr (C::kFeatures == kMask) hide(now, s);
          softmax.weigh(unit(), s, total);
          if (softmax.overflows(total)) {
            recompute_scores<C>(queries, key_tile(), s);
            quick = false;
          }
        }
        if (!quick) {
          if (!all) hide(now, s);
          moved = softmax.follow(unit(), s);
          softmax.weigh(unit(), s, total);
          trusted = softmax.settled();
        }
      }
      softmax.add(total);
      if constexpr (C::kStagesBias) release_bias();
      release_keys();
      // ptxas 13.0 would move the exponentials behind the wait for the product, but not across this loop.
      hold(s);
      if constexpr (C::kSurveys) {
        now.block = next;
      } else {
        --now.block;
      }
      if (now.block > now.end) {
        load_ahead(now);
        wait_for_keys();
      }
      ptx::wgmma_wait_group<0>();
      hold(o);
      hold(p);
      release_values();
      pack(s, p);
      if (moved) softmax.rescale(o);
    }
  }

  /// What a task's outputs are to be multiplied by, and its LSE to memory: all that does not wait for its last product.
  STROBE_DEVICE void end_sums(const Place& now, const Softmax<C>& softmax, float (&factors)[2]) const {
    RowEnd ends[2];
    end_rows<C>(f, task_of(now).head, unit(), softmax, ends);
    factors[0] = ends[0].factor;
    factors[1] = ends[1].factor;
    write_lse<C>(f, rows_of(now), ends);
  }

  /// The end of a task, when its last product has ended: O to memory.
  STROBE_DEVICE void finish(const Place& now, const float (&factors)[2], const typename C::Outputs& o) {
    const AttentionParams& p = f.attention;
    const Task<C>& task = task_of(now);
    u32 stage = 0;
    bool finite;
    if (p.output.type == Element::kFloat32) [[unlikely]] {
      finite = store_floats<C>(f, task, rows_of(now), factors, o);
    } else {
      OutputPairs<C> pairs{o, {factors[0], factors[1]}};
      if constexpr (C::kStagesOutput) {
        wait_for(memory.output_empty(number), output.parity() ^ 1);
        stage = memory.output(number);
        stage_rows<C>(stage, pairs);
      } else {
        store_chunks<C>(f, task, rows_of(now), pairs);
      }
      finite = pairs.all_finite();
    }
    if (__any_sync(~0u, !finite)) [[unlikely]]
      rescue_rows<C>(f, task, number, rows_not_finite<C>(o), stage);
    if (now.simple || rows_of(now).copied) {
      ptx::fence_proxy_async();
      release(memory.output_full(number));
      output.advance();
    } else if (stage != 0) {
      store_staged<C>(f, task, rows_of(now), stage);
    }
    if (!now.simple) clear_unused_rows(now);
    release_task(now);
  }

  STROBE_DEVICE void run() {
    typename C::Scores s;
    typename C::Weights p;
    typename C::Outputs o;
    Softmax<C> softmax;
    float factors[2];  // of the task that ends
    Place now, next;
    bool opened = false, ahead = false, settled = false;
    for (;;) {
      if (!ahead) {
        if (!take_task(now, opened)) break;
        load_ahead(now);
        start_task(s);
        pass_turn();
        ptx::wgmma_wait_group<0>();
        settled = weigh_first(now, softmax, s);
      }
      if (!now.simple && rows_of(now).tail != 0 && rows_of(now).before == 0) [[unlikely]]
        clear_tail(rows_of(now).tail);
      pack(s, p);
      clear(o);
      compute(now, settled, softmax, s, p, o);
      release_query();
      if constexpr (C::kLooksAhead) ahead = reach_next_task(now, next, opened);
      hold(o);
      hold(p);
      if (ahead) {
        load_ahead(next);
        start_task(s);
        start_adding(p, o);
        pass_turn();
        end_sums(now, softmax, factors);
        ptx::wgmma_wait_group<1>();
        settled = weigh_first(next, softmax, s);
        ptx::wgmma_wait_group<0>();
      } else {
        start_adding(p, o);
        end_sums(now, softmax, factors);
        ptx::wgmma_wait_group<0>();
      }
      hold(o);
      hold(p);
      release_values();
      release_owed_values();
      if (!ahead && !now.simple) skip_with_values(rows_of(now).behind);
      finish(now, factors, o);
      if (opened) now = next;
    }
  }
};

}  // namespace strobe::cuda::sm90
