// The manifest's families as a table.
#include "cuda/families.hpp"

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

const Family& family_of(const CudaDecision& decision) {
  for (const Family& family : families()) {
    if (family.id == decision.kernels[0].id) return family;
  }
  throw Error(ErrorCode::kInternal, "decision", "of no family", "made by a family's decide");
}

}  // namespace strobe::cuda
