// Hands decisions to the families that made them, and operators to their kernels.
#include "cuda/cuda.hpp"

#include "cuda/families.hpp"
#include "cuda/sm80/merge/launch.hpp"
#include "cuda/sm80/softmax/launch.hpp"

namespace strobe::cuda {
namespace {

[[noreturn]] void refuse(const char* what) {
  throw Error(ErrorCode::kUnsupported, "execution.device", "CUDA",
              std::string("the CPU for ") + what + ", which has no CUDA kernel yet");
}

}  // namespace

void prepare(const CudaDecision& decision, Stream stream) {
  Launcher launcher(stream);
  for (int i = 0; i < decision.kernel_count; ++i) launcher.prepare(decision.kernels[i]);
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Stream stream, void* workspace) {
  Launcher launcher(stream);
  const StreamMemory own(launcher, workspace == nullptr ? decision.workspace_bytes : 0);
  family_of(decision).run(problem, buffers, decision, launcher, workspace == nullptr ? own.data() : workspace);
}

void append(const Problem&, const Buffers&, Stream) { refuse("append"); }
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
