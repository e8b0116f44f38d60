// The kernel that sums the sinks' gradient, after `prepare`; one for all types and sizes.
#include "cuda/sm80/backward/sink.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kSinkThreads)
    strobe_sm80_backward_sink(const __grid_constant__ strobe::cuda::sm80::BackwardParams params) {
  strobe::cuda::sm80::sum_sink(params);
}
