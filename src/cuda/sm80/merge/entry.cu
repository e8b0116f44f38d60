// One compiled variant of the merge kernel. Options: STROBE_TYPE (an Element: the parts' type), STROBE_SPREAD (1: four
// groups of lanes share a row).
#include "cuda/sm80/merge/kernel.cuh"

extern "C" __global__ void __launch_bounds__(strobe::cuda::sm80::kMergeThreads)
    strobe_sm80_merge(const __grid_constant__ strobe::cuda::sm80::MergeParams params) {
  strobe::cuda::sm80::merge<STROBE_TYPE, STROBE_SPREAD != 0>(params);
}
