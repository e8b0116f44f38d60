// One compiled variant of the forward kernel. Options: STROBE_TYPE (an Element), STROBE_HEAD_DIM, STROBE_VALUE_DIM
// (built dimensions), STROBE_FEATURES (Feature bits), STROBE_ARCHITECTURE (80, 86, 90, ...).
#include "cuda/sm80/forward/kernel.cuh"

using Config = strobe::cuda::sm80::ForwardConfig<STROBE_TYPE, STROBE_HEAD_DIM, STROBE_VALUE_DIM, STROBE_FEATURES,
                                                 STROBE_ARCHITECTURE>;

extern "C" __global__ void __launch_bounds__(Config::kThreads, Config::kBlocks)
    strobe_sm80_forward(const __grid_constant__ strobe::cuda::sm80::ForwardParams params) {
  strobe::cuda::sm80::forward<Config>(params);
}
