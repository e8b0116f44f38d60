// One compiled variant of the Hopper backward kernel. Options: STROBE_TYPE (an Element), STROBE_DIM (a built dimension
// of heads and values), STROBE_FEATURES (Feature bits).
#include "cuda/sm90/backward/kernel.cuh"

using Config = strobe::cuda::sm90::BackwardConfig<STROBE_TYPE, STROBE_DIM, STROBE_FEATURES>;

#if STROBE_DIM > 128
#define STROBE_CLUSTER __cluster_dims__(Config::kCluster, 1, 1)
#else
#define STROBE_CLUSTER
#endif

extern "C" __global__ void STROBE_CLUSTER __launch_bounds__(Config::kThreads, 1)
    strobe_sm90_backward(const __grid_constant__ Config::Params params) {
  strobe::cuda::sm90::backward<Config>(params);
}
