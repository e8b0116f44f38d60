// One compiled variant of the softmax along rows. Options: STROBE_TYPE (an Element: all operands have it, contiguous
// rows, 16-byte aligned; or -1: any types and strides), STROBE_BACKWARD.
#include "cuda/sm80/softmax/rows.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kSoftmaxMostThreads, 2)
    strobe_sm80_softmax_rows(const __grid_constant__ strobe::cuda::sm80::SoftmaxParams params) {
#if STROBE_BACKWARD
  strobe::cuda::sm80::softmax_backward_rows<STROBE_TYPE>(params);
#else
  strobe::cuda::sm80::softmax_rows<STROBE_TYPE>(params);
#endif
}
