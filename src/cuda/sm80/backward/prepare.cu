// The kernel before the backward kernel; one for all types and sizes.
#include "cuda/sm80/backward/prepare.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kPrepareThreads, 3)
    strobe_sm80_backward_prepare(const __grid_constant__ strobe::cuda::sm80::BackwardParams params) {
  strobe::cuda::sm80::prepare(params);
}
