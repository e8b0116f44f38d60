// After the backward kernel: the sink's gradient from the tiles' shares, in one order always. A warp takes a head.
#pragma once

#include "cuda/device/base.cuh"
#include "cuda/sm80/backward/params.hpp"

namespace strobe::cuda::sm80 {

constexpr int kSinkThreads = kWarpLanes;

STROBE_DEVICE void grad_sink(const BackwardParams& f) {
  const int head = int(blockIdx.x);
  const float* const parts = f.sink_parts + i64(head) * f.slots;
  double total = 0.0;
  for (int n = int(threadIdx.x); n < f.slots; n += kSinkThreads) total += double(parts[n]);
#pragma unroll
  for (int lane = kWarpLanes / 2; lane > 0; lane /= 2) total += __shfl_xor_sync(~0u, total, lane);
  if (threadIdx.x == 0) reinterpret_cast<float*>(f.grad_sink.data)[head * f.grad_sink.stride] = float(total);
}

}  // namespace strobe::cuda::sm80
