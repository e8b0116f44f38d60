// How the blocks that share a row group find out which of them comes last, and so finds the parts of all others
// written. They count in a word of memory that holds anything when the launch begins, since a launch of its own to
// clear it would cost more than the merge: a count is `tag` + number of blocks, where the tag is a random word of the
// launch. Every block, before it counts itself, turns what is no count of an unfinished launch into a count of none.
// That holds for what a replay of a graph, whose tag is the same, left there: a complete count.
#pragma once

#include "cuda/device/ptx.cuh"

namespace strobe::cuda::sm80 {

struct Arrivals {
  u64* count;  // null: nobody asks
  u64 tag;
  int blocks;
  u64 found;  // what the first thread saw when the block started

  STROBE_DEVICE Arrivals(u64* word, u64 launch_tag, int expected) : count(word), tag(launch_tag), blocks(expected) {
    found = count != nullptr && threadIdx.x == 0 ? ptx::ld_relaxed_u64(count) : 0;
  }

  /// Counts the block, whose threads all call this when they have written. Whether it is the last.
  STROBE_DEVICE bool complete() const {
    bool last = false;
    __syncthreads();
    if (threadIdx.x == 0) {
      // Fails where another block has begun to count since. No block can have counted all: this one is missing.
      if (found - tag >= u64(blocks)) ptx::atom_cas_relaxed_u64(count, found, tag);
      last = ptx::atom_add_acq_rel_u64(count, 1) - tag == u64(blocks - 1);
    }
    return __syncthreads_or(last) != 0;
  }
};

}  // namespace strobe::cuda::sm80
