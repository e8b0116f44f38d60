// Merges parts by their LSEs: strobe::merge on CUDA, and the last step of kernels that split keys. Such a kernel writes
// parts and LSEs into its workspace (LSE -inf where a part saw nothing, its output then unwritten), describes them as a
// MergeProblem, and calls merge().
#pragma once

#include "base/operators.hpp"
#include "cuda/launch.hpp"
#include "cuda/sm80/merge/params.hpp"

namespace strobe::cuda::sm80_merge {

/// The kernel for so many parts of this type. The bits of a result do not depend on which kernel made it, nor on
/// further parts that saw nothing.
KernelKey kernel_for(DataType part_type, std::int64_t splits);

/// What a kernel is handed that merges.
sm80::MergeParams params_of(const MergeProblem& problem);

/// One launch; a packed problem has batch 1.
void merge(const MergeProblem& problem, Launcher& launcher);

}  // namespace strobe::cuda::sm80_merge
