// The sinks' gradient: each is the sum of its query tiles' shares, which `prepare` left, in one order always. A block
// takes one head.
#pragma once

#include "cuda/device/base.cuh"
#include "cuda/sm80/backward/params.hpp"

namespace strobe::cuda::sm80 {

constexpr int kSinkThreads = 256;

STROBE_DEVICE void sum_sink(const BackwardParams& f) {
  __shared__ double sums[kSinkThreads];
  const int head = int(blockIdx.x), thread = int(threadIdx.x);
  const float* const parts = f.sink_parts + i64(head) * f.slots;
  double sum = 0.0;
  for (int n = thread; n < f.slots; n += kSinkThreads) sum += double(parts[n]);
  sums[thread] = sum;
  for (int others = kSinkThreads / 2; others > 0; others /= 2) {
    __syncthreads();
    if (thread < others) sums[thread] += sums[thread + others];
  }
  if (thread == 0) reinterpret_cast<float*>(f.grad_sink.data)[head * f.grad_sink.stride] = float(sums[0]);
}

}  // namespace strobe::cuda::sm80
