// The kernel for the bias gradient. Options as entry.cu's.
#include "cuda/sm80/backward/bias.cuh"

using Config = strobe::cuda::sm80::BiasConfig<STROBE_TYPE, STROBE_HEAD_DIM, STROBE_VALUE_DIM, STROBE_FEATURES,
                                              STROBE_ARCHITECTURE>;

extern "C" __global__ void __launch_bounds__(Config::kThreads)
    strobe_sm80_backward_bias(const __grid_constant__ strobe::cuda::sm80::BackwardParams params) {
  strobe::cuda::sm80::grad_bias<Config>(params);
}
