// Merges parts by their LSEs: strobe::merge on CUDA, and the last step of kernels that split keys. Such a kernel writes
// parts and LSEs into its workspace (LSE -inf where a part saw nothing, its output then unwritten), describes them as a
// MergeProblem, and calls merge().
#pragma once

#include "base/operators.hpp"
#include "base/problem.hpp"
#include "cuda/launch.hpp"
#include "cuda/sm80/merge/params.hpp"

namespace strobe::cuda::sm80_merge {

/// The kernel for so many parts of this type. The bits of a result do not depend on which kernel made it, nor on
/// further parts that saw nothing.
KernelKey kernel_for(DataType part_type, std::int64_t splits);

/// What a kernel is handed that merges.
sm80::MergeParams params_of(const MergeProblem& problem);

/// Elements of a row of parts in a workspace: value_dim, in whole 16 bytes.
std::int64_t part_dim(const Problem& problem);

/// Where the float32 parts of a problem that is not packed, [splits, batch, rows, heads, part_dim], and their LSEs,
/// [splits, batch, heads, rows], lie in a workspace. Nowhere, if keys are not split.
struct PartsLayout {
  std::int64_t part_elements, part_lses;  // of a split
  std::size_t lses_at, bytes;             // bytes: a multiple of 256
};
PartsLayout parts_layout_of(const Problem& problem, std::int64_t splits);
/// Such parts, and what they are merged into.
MergeProblem parts_of(const Problem& problem, const Buffers& buffers, std::int64_t splits, void* workspace);

/// One launch; a packed problem has batch 1.
void merge(const MergeProblem& problem, Launcher& launcher);

}  // namespace strobe::cuda::sm80_merge
