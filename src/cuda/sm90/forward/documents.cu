// The kernel before the Hopper forward kernel, where there are documents; one for all types and sizes.
#include "cuda/sm90/forward/documents.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm90::kDocumentThreads)
    strobe_sm90_forward_documents(const __grid_constant__ strobe::cuda::sm90::ForwardParams params) {
  strobe::cuda::sm90::sum_up_documents(params);
}
