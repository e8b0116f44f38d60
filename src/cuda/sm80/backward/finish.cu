// The kernel after the backward kernel. Options as entry.cu's.
#include "cuda/sm80/backward/finish.cuh"

using Config = strobe::cuda::sm80::BackwardConfig<STROBE_TYPE, STROBE_HEAD_DIM, STROBE_VALUE_DIM, STROBE_FEATURES,
                                                  STROBE_ARCHITECTURE>;

extern "C" __global__ void __launch_bounds__(Config::kThreads)
    strobe_sm80_backward_finish(const __grid_constant__ strobe::cuda::sm80::BackwardParams params) {
  strobe::cuda::sm80::finish<Config>(params);
}
