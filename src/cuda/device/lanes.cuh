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

/// Exchanges words among the four lanes that share a row: lane n hands out word m to lane m, and receives those of all
/// lanes in their order.
STROBE_DEVICE void transpose_in_row(u32 (&words)[4]) {
  const bool odd = (threadIdx.x & 1) != 0, upper = (threadIdx.x & 2) != 0;
#pragma unroll
  for (int pair = 0; pair < 4; pair += 2) {
    const u32 theirs = __shfl_xor_sync(~0u, odd ? words[pair] : words[pair + 1], 1);
    (odd ? words[pair] : words[pair + 1]) = theirs;
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const u32 theirs = __shfl_xor_sync(~0u, upper ? words[n] : words[n + 2], 2);
    (upper ? words[n] : words[n + 2]) = theirs;
  }
}

}  // namespace strobe::cuda
