// Rings of stages in shared memory, handed from those that fill them to those that use them by pairs of barriers.
#pragma once

#include "cuda/device/hopper.cuh"

namespace strobe::cuda::sm90 {

STROBE_DEVICE void wait_for(u32 barrier, u32 parity) {
  while (!ptx::mbarrier_try_wait_parity(barrier, parity)) {
  }
}

/// A place in a ring of stages that goes round and round. A barrier's phases have alternating parity. One number, since
/// registers are scarce.
template <int kStages>
struct Ring {
  u32 count = 0;
  STROBE_DEVICE int stage() const { return int(count % kStages); }
  STROBE_DEVICE u32 parity() const { return count / kStages & 1; }
  STROBE_DEVICE void advance(int stages = 1) { count += u32(stages); }
};

}  // namespace strobe::cuda::sm90
