// A consumer: a warpgroup that takes 64 queries through the keys. While the tensor unit adds one block's values, the
// next block's scores become weights.
#pragma once

#include "cuda/sm90/forward/epilogue.cuh"
#include "cuda/sm90/forward/producer.cuh"
#include "cuda/sm90/forward/products.cuh"
#include "cuda/sm90/forward/rescue.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct Consumer {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  int number;  // of the warpgroup among the consumers
  Ring<C::kTasks> task_ring;
  Ring<C::kQueryStages> query;
  Ring<C::kStages> keys, values;
  u32 key_tile, value_tile;  // of the stages in work, known to be the same for all lanes

  STROBE_DEVICE static u32 uniform(u32 x) { return __shfl_sync(~0u, x, 0); }

  STROBE_DEVICE static void release(u32 barrier) {
    __syncwarp();
    if (lane_index() == 0) ptx::mbarrier_arrive(barrier);
  }

  /// Hides keys of the block from rows that do not see them.
  STROBE_DEVICE void hide(const Task<C>& task, int block, typename C::Scores& s) const {
    const TileView& view = task.views[number];
    const int first = block * C::kKeyBlock;
    const AttentionParams& p = f.attention;
    const int row = view.first_row + warp_index() % 4 * 16 + lane_index() / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = row + 8 * half, base = first + 2 * (lane_index() % 4);
      const KeyRange keys = i < view.last_row ? visible_keys(p, task.s, i) : KeyRange{0, 0};
      const int from = keys.first - base, to = keys.last - base;
#pragma unroll
      for (int n = 0; n < 2 * C::kKeyTiles; ++n) {
        const int column = n / 2 * 8 + n % 2;
        if (column < from || column >= to) s[n / 2][2 * half + n % 2] = minus_infinity();
      }
    }
  }

  /// Rows of V behind the sequence's end may hold anything, NaN too, and a weight of zero would not silence it.
  STROBE_DEVICE void clear_tail(const Task<C>& task) const {
    const int left = task.s.keys - task.last_block() * C::kKeyBlock;
    if (left >= C::kKeyBlock) return;
    wait_for(memory.values_full(values.stage), values.parity);
    const int thread = int(threadIdx.x) % kWarpgroup;
    for (int n = thread; n < (C::kKeyBlock - left) * C::kPanels * 8; n += kWarpgroup) {
      const int row = left + n / (C::kPanels * 8), chunk = n % (C::kPanels * 8);
      ptx::st_shared_16(
          value_tile + chunk / 8 * C::kKeyBlock * kPanelRowBytes + row * kPanelRowBytes + chunk % 8 * kChunkBytes,
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

  STROBE_DEVICE void wait_for_keys() const { wait_for(memory.keys_full(keys.stage), keys.parity); }
  STROBE_DEVICE void release_keys() {
    release(memory.keys_empty(keys.stage));
    keys.advance();
    key_tile = uniform(memory.keys(keys.stage));
  }
  STROBE_DEVICE void release_query() {
    release(memory.query_empty(query.stage));
    query.advance();
  }
  STROBE_DEVICE void release_values() {
    release(memory.values_empty(values.stage));
    values.advance();
    value_tile = uniform(memory.values(values.stage));
  }

  STROBE_DEVICE void start_adding(typename C::Weights& p, typename C::Outputs& o) const {
    wait_for(memory.values_full(values.stage), values.parity);
    ptx::wgmma_fence();
    start_outputs<C>(p, value_tile, o);
    ptx::wgmma_commit_group();
  }

  static STROBE_DEVICE bool all_seen(const TileView& view, int block) {
    return sees_all(view, block * C::kKeyBlock, (block + 1) * C::kKeyBlock);
  }

  /// Lets blocks from `block` down to `end` go unread that the warpgroup's rows do not see. Returns the first one that
  /// they see.
  STROBE_DEVICE int skip_unseen(const TileView& view, int block, int end) {
    while (block > end && !reaches(view, block * C::kKeyBlock, (block + 1) * C::kKeyBlock)) {
      wait_for_keys();
      release_keys();
      wait_for(memory.values_full(values.stage), values.parity);
      release_values();
      --block;
    }
    return block;
  }

  STROBE_DEVICE void compute(const Task<C>& task) {
    const float unit = f.attention.scale * kLog2E;
    const u32 rows = uniform(memory.query(query.stage) + number * kWarpgroupRows * kPanelRowBytes);
    typename C::Scores s;
    typename C::Weights p;
    typename C::Outputs o;
    Softmax<C> softmax;

    wait_for(memory.query_full(query.stage), query.parity);
    const TileView& view = task.views[number];
    const int end = task.first_block - 1;
    int block = skip_unseen(view, task.last_block(), end);
    if (block > end) {
      const int own_end = larger(end, view.begin / C::kKeyBlock - 1);
      wait_for_keys();
      ptx::wgmma_fence();
      start_scores<C>(rows, key_tile, s);
      ptx::wgmma_commit_group();
      clear(o);
      if (block == task.last_block()) clear_tail(task);
      ptx::wgmma_wait_group<0>();
      hold(s);
      release_keys();
      if (!all_seen(view, block)) hide(task, block, s);
      float total[2];
      softmax.follow(unit, s);
      softmax.weigh(unit, s, total);
      softmax.add(total);
      pack(s, p);
      bool settled = softmax.settled();

      if (--block > own_end) wait_for_keys();
      while (block > own_end) {
        const bool all = all_seen(view, block);
        hold(o);
        hold(p);
        ptx::wgmma_fence();
        start_scores<C>(rows, key_tile, s);
        ptx::wgmma_commit_group();
        start_adding(p, o);
        ptx::wgmma_wait_group<1>();
        hold(s);
        bool quick = all && settled, moved = false;
        if (quick) {
          softmax.weigh(unit, s, total);
          if (softmax.overflows(total)) {
            recompute_scores<C>(rows, key_tile, s);
            quick = false;
          }
        }
        if (!quick) {
          if (!all) hide(task, block, s);
          moved = softmax.follow(unit, s);
          softmax.weigh(unit, s, total);
          settled = softmax.settled();
        }
        softmax.add(total);
        release_keys();
        // ptxas 13.0 would move the exponentials behind the wait for the product, but not across this loop.
        hold(s);
        if (--block > own_end) wait_for_keys();
        ptx::wgmma_wait_group<0>();
        hold(o);
        hold(p);
        release_values();
        pack(s, p);
        if (moved) softmax.rescale(o);
      }
      if constexpr (C::kOutputApart) release_query();
      hold(o);
      hold(p);
      start_adding(p, o);
      wait_for_stage(number);
      ptx::wgmma_wait_group<0>();
      hold(o);
      release_values();
      skip_unseen(view, block, end);
    } else {
      if constexpr (C::kOutputApart) release_query();
      clear(o);
      wait_for_stage(number);
    }

    const bool suspicious = write_rows<C>(f, memory, task, number, unit, softmax, o);
    if constexpr (!C::kOutputApart) {
      wait_for_stage(number);
      release_query();
    }
    if (suspicious) {
      finish_stores();  // what the copy engine writes comes first
      ptx::bar_sync(1 + number, kWarpgroup);
      rescue_rows<C>(f, task, number, rows_not_finite<C>(o));
    }
  }

  /// A tile none of whose rows sees a key.
  STROBE_DEVICE void clear_all(const Task<C>& task) const {
    const AttentionParams& p = f.attention;
    const TileView& view = task.views[number];
    const int last_stored = smaller(view.first_row + kWarpgroupRows, task.s.stored_queries);
    clear_rows(p, task.s, task.head, view.first_row, view.last_row, sink_of(p, task.head));
    clear_rows(p, task.s, task.head, larger(view.first_row, task.s.queries), last_stored, minus_infinity());
  }

  STROBE_DEVICE void run() {
    key_tile = uniform(memory.keys(0));
    value_tile = uniform(memory.values(0));
    for (;;) {
      wait_for(memory.task_full(task_ring.stage), task_ring.parity);
      const Task<C>& task = tasks[task_ring.stage];
      if (!task.there) break;
      if (!task.sees_nothing()) {
        compute(task);
      } else {
        clear_all(task);
      }
      release(memory.task_empty(task_ring.stage));
      task_ring.advance();
    }
    finish_stores();
  }
};

}  // namespace strobe::cuda::sm90
