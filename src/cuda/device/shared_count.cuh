// A count that the blocks of one launch keep together, in a word of memory that holds anything when the launch begins,
// since a launch of its own to clear it would cost more. A count is `tag` + n, where the tag is a random word of the
// launch. Every block, before it adds for the first time, turns what is no count of an unfinished launch into a count
// of none. That holds for what a replay of a graph, whose tag is the same, left there: a complete count.
#pragma once

#include "cuda/device/ptx.cuh"

namespace strobe::cuda {

/// One thread of each block has it.
struct SharedCount {
  u64* word;
  u64 tag;
  u64 complete;  // how often the launch's blocks add 1, at least once each
  u64 found;     // what was there some time before the block adds for the first time (ld_relaxed_u64)

  /// Before the block's first addition. Fails to replace anything where another block has begun to count since. No
  /// block can have seen a complete count of this launch: this one's additions are missing.
  STROBE_DEVICE void open() const {
    if (found - tag >= complete) ptx::atom_cas_relaxed_u64(word, found, tag);
  }

  /// Adds 1 and returns what was counted before.
  STROBE_DEVICE u64 add() const { return ptx::atom_add_relaxed_u64(word, 1) - tag; }
  /// The same; hands over what the block did before, and takes over what those did who came earlier.
  STROBE_DEVICE u64 add_acq_rel() const { return ptx::atom_add_acq_rel_u64(word, 1) - tag; }
};

}  // namespace strobe::cuda
