// The manifest's families as a table.
#include "cuda/families.hpp"

#include "cuda/sm80/append/launch.hpp"

namespace strobe::cuda {

#define STROBE_CUDA_FAMILY(id, space, pass, why)                                   \
  namespace space {                                                                \
  bool serves(const Problem&, const CudaDevice&, std::string*);                    \
  void decide(const Problem&, const CudaDevice&, CudaDecision&);                   \
  void run(const Problem&, const Buffers&, const CudaDecision&, Launcher&, void*); \
  }
#include "cuda/kernels.inc"

namespace {

constexpr Family kFamilies[] = {
#define STROBE_CUDA_FAMILY(id, space, pass, why) \
  {KernelId::id, Pass::pass, why, space::serves, space::decide, space::run},
#include "cuda/kernels.inc"
    {KernelId::kCount, Pass::kForward, "", nullptr, nullptr, nullptr}  // the end
};

}  // namespace

std::span<const Family> families() { return {kFamilies, std::size(kFamilies) - 1}; }

CudaDecision decide(const Family& family, const Problem& problem, const CudaDevice& device) {
  CudaDecision decision;
  family.decide(problem, device, decision);
  if (sm80_append::is_needed(problem)) {
    decision.preparation = {.needed = true,
                            .kernel = sm80_append::kernel_for(problem),
                            .workspace_bytes = sm80_append::workspace_bytes(problem)};
    decision.workspace_bytes += decision.preparation.workspace_bytes;
    decision.workspace_is_counts &= decision.preparation.workspace_bytes == 0;
  }
  return decision;
}

const Family& family_of(const CudaDecision& decision) {
  for (const Family& family : families()) {
    if (family.id == decision.kernels[0].id) return family;
  }
  throw Error(ErrorCode::kInternal, "decision", "of no family", "made by a family's decide");
}

}  // namespace strobe::cuda
