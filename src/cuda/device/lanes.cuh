// What lanes that share rows tell each other. In the accumulators of mma and wgmma, four neighbouring lanes hold a row.
#pragma once

#include "cuda/device/base.cuh"

namespace strobe::cuda {

/// The largest value among the four lanes that share a row.
STROBE_DEVICE float largest_in_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
STROBE_DEVICE float sum_in_row(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

}  // namespace strobe::cuda
