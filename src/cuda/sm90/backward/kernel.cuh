// The backward kernel for Hopper (FlashAttention-3, arXiv 2407.08608): a thread block takes block after block of keys
// of one KV head through the query tiles that see it. One warpgroup asks the tensor copy engine for tiles and sees to
// the turns at dQ, the others compute, each 64 keys. README.md has the timeline and the budget.
#pragma once

#include "cuda/sm90/backward/consumer.cuh"
#include "cuda/sm90/backward/producer.cuh"
#include "cuda/sm90/backward/turns.cuh"

namespace strobe::cuda::sm90 {

extern __shared__ __align__(kBackwardAlignment) char shared_memory[];

template <class C>
STROBE_DEVICE void start_barriers(const BackwardMemory<C>& memory, bool await_reads) {
  constexpr int kConsumerWarps = 4 * C::kConsumers;
  ptx::mbarrier_init(memory.landed(), 1);
  ptx::mbarrier_init(memory.stage_empty(), 1);
  for (int stage = 0; stage < 2; ++stage) {
    ptx::mbarrier_init(memory.item_full(stage), 1);
    ptx::mbarrier_init(memory.item_empty(stage),
                       kConsumerWarps + 1 + C::kTurnThreads + (C::kCluster > 1 && memory.rank == 0 ? 1 : 0));
    ptx::mbarrier_init(memory.added(stage), kConsumerWarps);
    ptx::mbarrier_init(memory.keys_full(stage), 1);
    ptx::mbarrier_init(memory.values_full(stage), C::kCluster);
    ptx::mbarrier_init(memory.keys_empty(stage), kConsumerWarps);
    ptx::mbarrier_init(memory.query_full(stage), 1);
    ptx::mbarrier_init(memory.query_empty(stage), kConsumerWarps + (C::kSurveys && await_reads ? 1 : 0));
    ptx::mbarrier_init(memory.grad_output_full(stage), 1);
    ptx::mbarrier_init(memory.grad_output_empty(stage), kConsumerWarps);
    ptx::mbarrier_init(memory.turn_come(stage), 2);
    ptx::mbarrier_init(memory.graded(stage), C::kCluster > 1 ? 1 : kConsumerWarps);
    ptx::mbarrier_init(memory.other_graded(stage), kConsumerWarps);
    ptx::mbarrier_init(memory.number_full(stage), 1);
  }
  ptx::fence_mbarrier_init();
}

template <class C>
STROBE_DEVICE void backward(const typename C::Params& f) {
  const u32 start = ptx::shared_address(shared_memory),
            base = (start + kBackwardAlignment - 1) / kBackwardAlignment * kBackwardAlignment;
  const int rank = C::kCluster > 1 ? ptx::cluster_rank() : 0;
  const BackwardMemory<C> memory{base, rank, C::kCluster > 1 ? ptx::cluster_address(base, rank ^ 1) - base : 0};
  char* const aligned = shared_memory + (base - start);
  auto* const told = reinterpret_cast<typename C::Visit*>(aligned + C::kAt.visits);
  auto* const items = reinterpret_cast<BackwardItem*>(aligned + C::kAt.items);
  if (threadIdx.x == 0) start_barriers(memory, f.common.grad_query.data != nullptr);
  ptx::griddepcontrol_wait();
  C::kCluster > 1 ? ptx::cluster_sync() : __syncthreads();
  const int warpgroup = int(threadIdx.x) / kWarpgroup;
  if (warpgroup == 0) {
    ptx::setmaxnreg_dec<C::kTile.producer_registers>();
    if (warp_index() == 0) BackwardProducer<C>{f, memory, told, items}.run();
    if (threadIdx.x == kWarpLanes) BackwardTurns<C>{f.common, memory, told, items}.await();
    const int passer = warp_index() - 2;
    if (passer >= 0 && passer < C::kTurnThreads && lane_index() == 0) {
      BackwardTurns<C>{f.common, memory, told, items}.pass(passer);
    }
  } else {
    ptx::setmaxnreg_inc<C::kTile.consumer_registers>();
    BackwardConsumer<C>{f.common, memory, told, items, warpgroup - 1}.run();
  }
  if constexpr (C::kCluster > 1) ptx::cluster_sync();  // shared memory stays while the other thread block uses it
}

}  // namespace strobe::cuda::sm90
