// How the blocks that share a row group find out which of them comes last, and so finds the parts of all others
// written.
#pragma once

#include "cuda/device/shared_count.cuh"

namespace strobe::cuda::sm80 {

struct Arrivals {
  u64* word;  // null: nobody asks
  u64 tag;
  int blocks;
  u64 found = 0;  // by the first thread, some time before the block counts itself

  STROBE_DEVICE Arrivals(u64* at, u64 launch_tag, int expected) : word(at), tag(launch_tag), blocks(expected) {}

  STROBE_DEVICE void look() {
    if (word != nullptr && threadIdx.x == 0) found = ptx::ld_relaxed_u64(word);
  }

  /// Counts the block, whose threads all call this when they have written. Whether it is the last.
  STROBE_DEVICE bool complete() const {
    bool last = false;
    __syncthreads();
    if (threadIdx.x == 0) {
      const SharedCount count{word, tag, u64(blocks), found};
      count.open();
      last = count.add_acq_rel() == u64(blocks - 1);
    }
    return __syncthreads_or(last) != 0;
  }
};

}  // namespace strobe::cuda::sm80
