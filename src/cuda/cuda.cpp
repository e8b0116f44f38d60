// Hands decisions to the families that made them, and operators to their kernels.
#include "cuda/cuda.hpp"

#include "cuda/families.hpp"
#include "cuda/sm80/append/launch.hpp"
#include "cuda/sm80/merge/launch.hpp"
#include "cuda/sm80/softmax/launch.hpp"

namespace strobe::cuda {

void prepare(const CudaDecision& decision, Stream stream) {
  Launcher launcher(stream);
  if (decision.preparation.needed) launcher.prepare(decision.preparation.kernel);
  for (int i = 0; i < decision.kernel_count; ++i) launcher.prepare(decision.kernels[i]);
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Stream stream, void* workspace) {
  Launcher launcher(stream);
  if (workspace == nullptr && decision.workspace_is_counts) workspace = launcher.counts();
  const StreamMemory own(launcher, workspace == nullptr ? decision.workspace_bytes : 0);
  auto* memory = static_cast<char*>(workspace == nullptr ? own.data() : workspace);
  const Family& family = family_of(decision);
  if (!decision.preparation.needed) return family.run(problem, buffers, decision, launcher, memory);
  const Buffers prepared = sm80_append::prepare(problem, buffers, launcher, memory);
  family.run(problem, prepared, decision, launcher, memory + decision.preparation.workspace_bytes);
}

void append(const Problem& problem, const Buffers& buffers, Stream stream) {
  Launcher launcher(stream);
  sm80_append::append(problem, buffers, launcher);
}

void merge(const MergeProblem& problem, Stream stream) {
  Launcher launcher(stream);
  sm80_merge::merge(problem, launcher);
}

void softmax(const SoftmaxProblem& problem, Stream stream) {
  Launcher launcher(stream);
  sm80_softmax::softmax(problem, launcher);
}

void softmax_backward(const SoftmaxProblem& problem, Stream stream) {
  Launcher launcher(stream);
  sm80_softmax::softmax_backward(problem, launcher);
}

}  // namespace strobe::cuda
