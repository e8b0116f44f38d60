// One compiled variant of the Hopper forward kernel. Options: STROBE_TYPE (an Element), STROBE_DIM (a built dimension
// of heads and values), STROBE_FEATURES (Feature bits).
#include "cuda/sm90/forward/kernel.cuh"

using Config = strobe::cuda::sm90::ForwardConfig<STROBE_TYPE, STROBE_DIM, STROBE_FEATURES>;

extern "C" __global__ void __launch_bounds__(Config::kThreads, 1)
    strobe_sm90_forward(const __grid_constant__ strobe::cuda::sm90::ForwardParams params) {
  strobe::cuda::sm90::forward<Config>(params);
}
