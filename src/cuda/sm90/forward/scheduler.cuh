// The scheduler: hands out tiles, and leaves in shared memory what the others must know of them.
#pragma once

#include "cuda/device/shared_count.cuh"
#include "cuda/sm90/forward/survey.cuh"

namespace strobe::cuda::sm90 {

/// The thread, or warp, that hands out tiles: the first by the block's number, the others as blocks come for them. A
/// block asks as late as it can, since it might be the last to end with the tile.
template <class C>
struct Scheduler {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;

  /// Of the warp, where a warp surveys tasks.
  STROBE_DEVICE static bool leads() { return !C::kSurveys || lane_index() == 0; }

  STROBE_DEVICE void run() {
    Ring<C::kTasks> ring;
    Ring<1> wanted;
    const int count = f.tiles * f.heads;
    // Each tile is taken once, and each block asks once in vain, but has its first tile without asking.
    const SharedCount taken{f.tiles_taken, f.tag, u64(count), ptx::ld_relaxed_u64(f.tiles_taken)};
    bool first = true;
    for (int index = int(blockIdx.x);; ring.advance()) {
      wait_for(memory.task_empty(ring.stage()), ring.parity() ^ 1);
      if (index < count) {
        if (leads()) describe<C>(f, index, tasks[ring.stage()]);
        if constexpr (C::kSurveys) {
          __syncwarp();
          survey_task<C>(f, tasks[ring.stage()]);
        }
      } else if (leads()) {
        describe_end(tasks[ring.stage()]);
      }
      if constexpr (C::kSurveys) __syncwarp();
      if (leads()) ptx::mbarrier_arrive(memory.task_full(ring.stage()));
      if (index >= count) return;
      wait_for(memory.task_wanted(), wanted.parity());
      wanted.advance();
      if (leads()) {
        if (first) taken.open();
        index = int(gridDim.x) + int(taken.add());
      }
      first = false;
      if constexpr (C::kSurveys) index = __shfl_sync(~0u, index, 0);
    }
  }
};

}  // namespace strobe::cuda::sm90
