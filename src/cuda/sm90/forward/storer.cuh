// The storer: one thread that asks the copy engine to write outputs which consumers have left in shared memory.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct Storer {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  Ring<C::kTasks> task_ring;
  Ring<1> outputs[C::kConsumers];

  /// A consumer's rows. Those that the tensor does not have are not written.
  STROBE_DEVICE void store(const Task<C>& task, int consumer) {
    wait_for(memory.output_full(consumer), outputs[consumer].parity());
    outputs[consumer].advance();
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      const u32 from = memory.output(consumer) + panel * kWarpgroupRows * kPanelRowBytes;
      const int row = task.s.first_query + task.rows[consumer].first_row, head = task.head;
      const int batch = f.attention.packed_queries ? 0 : task.s.batch;
      const bool shared = heads_of_tile<C>(f) > 1;
      ptx::cp_async_bulk_tensor_store(f.output, from, panel * kPanel, shared ? head : row, shared ? row : head, batch);
    }
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group_read();
    ptx::mbarrier_arrive(memory.output_empty(consumer));
  }

  STROBE_DEVICE void run() {
    for (;; task_ring.advance()) {
      wait_for(memory.task_full(task_ring.stage()), task_ring.parity());
      const Task<C>& task = tasks[task_ring.stage()];
      if (!task.there) break;
#pragma unroll
      for (int consumer = 0; consumer < C::kConsumers; ++consumer) {
        if (task.rows[consumer].copied) store(task, consumer);
      }
      ptx::mbarrier_arrive(memory.task_empty(task_ring.stage()));
    }
    ptx::cp_async_bulk_wait_group();
  }
};

}  // namespace strobe::cuda::sm90
