// Rings of stages in shared memory, handed from those that fill them to those that use them by pairs of barriers.
#pragma once

#include "cuda/device/hopper.cuh"

namespace strobe::cuda::sm90 {

STROBE_DEVICE void wait_for(u32 barrier, u32 parity) {
  while (!ptx::mbarrier_try_wait_parity(barrier, parity)) {
  }
}

/// A place in a ring of stages that goes round and round. A barrier's phases have alternating parity.
template <int kStages>
struct Ring {
  int stage = 0;
  u32 parity = 0;
  STROBE_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace strobe::cuda::sm90
