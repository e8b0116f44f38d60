// One compiled variant of the append kernel. Option: STROBE_TYPE (an Element; 3 serves both kinds of float8).
#include "cuda/sm80/append/kernel.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kAppendThreads)
    strobe_sm80_append(const __grid_constant__ strobe::cuda::sm80::AppendParams params) {
  strobe::cuda::sm80::append<STROBE_TYPE>(params);
}
