// The bias loader: one thread that has the copy engine bring each consumer the bias of its rows, block by block. It
// waits for consumers apart from the producer: a block's bias is read to its end later than the block's keys.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct BiasLoader {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  Ring<C::kTasks> task_ring;
  Ring<1> stages[C::kConsumers];

  /// The bias of a consumer's rows and a block of keys. What lies outside of the tensor belongs to no key or row in
  /// use.
  STROBE_DEVICE void load(const Task<C>& task, int consumer, int block) {
    const ScoresView& bias = f.attention.bias;
    wait_for(memory.bias_empty(consumer), stages[consumer].parity() ^ 1);
    ptx::mbarrier_arrive_expect_tx(memory.bias_full(consumer), f.bias_rows * C::kKeyBlock * 2);
#pragma unroll
    for (int panel = 0; panel < C::kKeyBlock / kPanel; ++panel) {
      ptx::cp_async_bulk_tensor_load(
          memory.bias(consumer) + panel * kWarpgroupRows * kPanelRowBytes, f.bias, memory.bias_full(consumer),
          block * C::kKeyBlock + panel * kPanel, bias.row_stride == 0 ? 0 : task.rows[consumer].first_row,
          bias.head_stride == 0 ? 0 : task.head, bias.batch_stride == 0 ? 0 : task.s.batch, ptx::kEvictFirst);
    }
    stages[consumer].advance();
  }

  STROBE_DEVICE void run() {
    for (;; task_ring.advance()) {
      wait_for(memory.task_full(task_ring.stage()), task_ring.parity());
      const Task<C>& task = tasks[task_ring.stage()];
      if (!task.there) return;
      for (int block = f.bias_rows > 0 ? task.top : task.end; block > task.end; --block) {
#pragma unroll
        for (int consumer = 0; consumer < C::kConsumers; ++consumer) {
          const ConsumerRows& rows = task.rows[consumer];
          if (block <= rows.top && block > rows.end) load(task, consumer, block);
        }
      }
      ptx::mbarrier_arrive(memory.task_empty(task_ring.stage()));
    }
  }
};

}  // namespace strobe::cuda::sm90
