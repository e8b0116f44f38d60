// Hands problems to the kernel families. A family comes in here with three lines: serves, decide, run.
#include "cuda/cuda.hpp"

namespace strobe::cuda {

bool serves(const Problem&, const CudaDevice&, std::string* why_not) {
  if (why_not != nullptr) *why_not = "no CUDA kernel computes it yet";
  return false;
}

void decide(const Problem&, const CudaDevice&, CudaDecision&) {}

void prepare(const CudaDecision& decision, Stream stream) {
  Launcher launcher(stream);
  for (int i = 0; i < decision.kernel_count; ++i) launcher.prepare(decision.kernels[i]);
}

void run(const Problem&, const Buffers&, const CudaDecision& decision, Stream stream, void* workspace) {
  Launcher launcher(stream);
  const StreamMemory own(launcher, workspace == nullptr ? decision.workspace_bytes : 0);
}

}  // namespace strobe::cuda
