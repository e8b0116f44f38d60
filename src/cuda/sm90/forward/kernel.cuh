// The forward kernel for Hopper (FlashAttention-3, arXiv 2407.08608): one warpgroup asks the tensor copy engine for
// tiles, the others compute, each 64 queries. Blocks are persistent: they take tile after tile, and the next tile's
// loads run ahead of the last one's end. README.md has the timeline and the budget.
#pragma once

#include "cuda/sm90/forward/bias.cuh"
#include "cuda/sm90/forward/consumer.cuh"
#include "cuda/sm90/forward/scheduler.cuh"
#include "cuda/sm90/forward/storer.cuh"

namespace strobe::cuda::sm90 {

extern __shared__ __align__(kTileAlignment) char shared_memory[];

template <class C>
STROBE_DEVICE void start_barriers(const SharedMemory<C>& memory) {
  constexpr int kConsumerWarps = 4 * C::kConsumers;
  for (int stage = 0; stage < C::kQueryStages; ++stage) {
    ptx::mbarrier_init(memory.query_full(stage), 1);
    ptx::mbarrier_init(memory.query_empty(stage), 4);  // the warps of the one consumer whose queries these are
  }
  for (int stage = 0; stage < C::kStages; ++stage) {
    ptx::mbarrier_init(memory.keys_full(stage), 1);
    ptx::mbarrier_init(memory.values_full(stage), 1);
    ptx::mbarrier_init(memory.keys_empty(stage), kConsumerWarps);
    ptx::mbarrier_init(memory.values_empty(stage), kConsumerWarps);
  }
  for (int stage = 0; stage < C::kTasks; ++stage) {
    ptx::mbarrier_init(memory.task_full(stage), 1);
    // And producer, storer, bias loader.
    ptx::mbarrier_init(memory.task_empty(stage), kConsumerWarps + 1 + int(C::kStagesOutput) + int(C::kStagesBias));
  }
  for (int consumer = 0; consumer < C::kConsumers; ++consumer) {
    ptx::mbarrier_init(memory.output_full(consumer), 4);
    ptx::mbarrier_init(memory.output_empty(consumer), 1);
  }
  ptx::mbarrier_init(memory.task_wanted(), 1);
  for (int consumer = 0; C::kStagesBias && consumer < C::kConsumers; ++consumer) {
    ptx::mbarrier_init(memory.bias_full(consumer), 1);
    ptx::mbarrier_init(memory.bias_empty(consumer), 4);
  }
  ptx::fence_mbarrier_init();
}

/// Zeros for rows of queries that are nobody's, so that they are numbers.
template <class C>
STROBE_DEVICE void clear_rows_of_nobody(const HeadSharing& sharing, const SharedMemory<C>& memory) {
  const int first = sharing.heads * sharing.queries, chunks = (kWarpgroupRows - first) * kPanelRowBytes / kChunkBytes;
  for (int panel = 0; panel < C::kQueryStages * C::kPanels; ++panel) {
    const u32 rows = memory.query(0) + (panel * kWarpgroupRows + first) * kPanelRowBytes;
    for (int n = int(threadIdx.x); n < chunks; n += C::kThreads) {
      ptx::st_shared_16(rows + n * kChunkBytes, make_uint4(0, 0, 0, 0));
    }
  }
  ptx::fence_proxy_async();
}

template <class C>
STROBE_DEVICE void forward(const ForwardParams& f) {
  const SharedMemory<C> memory{ptx::shared_address(shared_memory)};
  auto* const tasks = reinterpret_cast<Task<C>*>(shared_memory + C::kTasksAt);
  static_assert(C::kTasks * sizeof(Task<C>) <= C::kAllTaskBytes);
  if (threadIdx.x == 0) start_barriers(memory);
  if constexpr (C::kSharesTiles) clear_rows_of_nobody<C>(f.sharing, memory);
  if (threadIdx.x == kWarpLanes) {
    ptx::prefetch_tensormap(f.query);
    ptx::prefetch_tensormap(f.key);
    ptx::prefetch_tensormap(f.value);
  }
  __syncthreads();
  const int warpgroup = int(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    ptx::setmaxnreg_dec<C::kTile.producer_registers>();
    if (C::kPaged ? warp_index() == 0 : threadIdx.x == 0) Producer<C>{f, memory, tasks}.run();
    if (C::kSurveys ? warp_index() == 1 : threadIdx.x == kWarpLanes) Scheduler<C>{f, memory, tasks}.run();
    if (C::kStagesOutput && threadIdx.x == 2 * kWarpLanes) Storer<C>{f, memory, tasks}.run();
    if (C::kStagesBias && threadIdx.x == 3 * kWarpLanes) BiasLoader<C>{f, memory, tasks}.run();
  } else {
    ptx::setmaxnreg_inc<C::kTile.consumer_registers>();
    Consumer<C>(f, memory, tasks, warpgroup - 1).run();
  }
}

}  // namespace strobe::cuda::sm90
