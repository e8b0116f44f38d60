// One compiled variant of the decode kernel. Options as the forward kernel's.
#include "cuda/sm80/decode/kernel.cuh"

using Config = strobe::cuda::sm80::DecodeConfig<STROBE_TYPE, STROBE_HEAD_DIM, STROBE_VALUE_DIM, STROBE_FEATURES,
                                                STROBE_ARCHITECTURE>;

extern "C" __global__ void __launch_bounds__(Config::kThreads, 2)
    strobe_sm80_decode(const __grid_constant__ strobe::cuda::sm80::DecodeParams params) {
  strobe::cuda::sm80::decode<Config>(params);
}
