// One compiled variant of the backward kernel. Options: STROBE_TYPE (an Element), STROBE_HEAD_DIM, STROBE_VALUE_DIM
// (built dimensions), STROBE_FEATURES (Feature bits), STROBE_ARCHITECTURE (80, 86, 90, ...).
#include "cuda/sm80/backward/kernel.cuh"

using Config = strobe::cuda::sm80::BackwardConfig<STROBE_TYPE, STROBE_HEAD_DIM, STROBE_VALUE_DIM, STROBE_FEATURES,
                                                  STROBE_ARCHITECTURE>;

extern "C" __global__ void __launch_bounds__(Config::kThreads, Config::kTile.blocks)
    strobe_sm80_backward(const __grid_constant__ strobe::cuda::sm80::BackwardParams params) {
  strobe::cuda::sm80::backward<Config>(params);
}
