// The producer: one thread that keeps the tensor copy engine busy. It waits until nobody reads a stage any more and
// asks for the next tile to be brought there; consumers hear of its arrival from the stage's barrier.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct Producer {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  Ring<C::kTasks> task_ring;
  Ring<C::kQueryStages> query;
  Ring<C::kStages> keys, values;

  /// Rows [row, row + kRows) of one head, panel by panel.
  template <int kRows>
  STROBE_DEVICE void load(u32 to, const TensorMap& map, u32 barrier, int row, int head, int batch, u64 policy) const {
    ptx::mbarrier_arrive_expect_tx(barrier, kRows * C::kDim * 2);
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      ptx::cp_async_bulk_tensor_load(to + panel * kRows * kPanelRowBytes, map, barrier, panel * kPanel, row, head,
                                     batch, policy);
    }
  }

  STROBE_DEVICE void load_query(const Task<C>& task) {
    wait_for(memory.query_empty(query.stage), query.parity ^ 1);
    load<C::kQueryTile>(memory.query(query.stage), f.query, memory.query_full(query.stage),
                        task.s.first_query + task.views[0].first_row, task.head,
                        f.attention.packed_queries ? 0 : task.s.batch, ptx::kEvictFirst);
    query.advance();
  }

  STROBE_DEVICE void load_keys(const Task<C>& task, int block) {
    wait_for(memory.keys_empty(keys.stage), keys.parity ^ 1);
    load<C::kKeyBlock>(memory.keys(keys.stage), f.key, memory.keys_full(keys.stage),
                       task.s.first_key + block * C::kKeyBlock, task.kv_head, task.s.cache_row, ptx::kEvictLast);
    keys.advance();
  }

  STROBE_DEVICE void load_values(const Task<C>& task, int block) {
    wait_for(memory.values_empty(values.stage), values.parity ^ 1);
    load<C::kKeyBlock>(memory.values(values.stage), f.value, memory.values_full(values.stage),
                       task.s.first_key + block * C::kKeyBlock, task.kv_head, task.s.cache_row, ptx::kEvictLast);
    values.advance();
  }

  /// In the order in which consumers need them: Q, K0, K1, V0, K2, V1, ...
  STROBE_DEVICE void load_tile(const Task<C>& task) {
    load_query(task);
    load_keys(task, task.last_block());
    for (int block = task.last_block(); block >= task.first_block; --block) {
      if (block > task.first_block) load_keys(task, block - 1);
      load_values(task, block);
    }
  }

  STROBE_DEVICE void run() {
    for (;;) {
      wait_for(memory.task_full(task_ring.stage), task_ring.parity);
      const Task<C>& task = tasks[task_ring.stage];
      if (!task.there) return;
      if (!task.sees_nothing()) load_tile(task);
      ptx::mbarrier_arrive(memory.task_empty(task_ring.stage));
      task_ring.advance();
    }
  }
};

}  // namespace strobe::cuda::sm90
