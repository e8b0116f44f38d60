// One compiled variant of the softmax of rows that lie side by side. Option: STROBE_BACKWARD.
#include "cuda/sm80/softmax/columns.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kColumns* strobe::cuda::sm80::kColumnThreads, 2)
    strobe_sm80_softmax_columns(const __grid_constant__ strobe::cuda::sm80::SoftmaxParams params) {
#if STROBE_BACKWARD
  strobe::cuda::sm80::softmax_backward_columns(params);
#else
  strobe::cuda::sm80::softmax_columns(params);
#endif
}
