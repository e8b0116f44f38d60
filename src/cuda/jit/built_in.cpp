// The table of built-in kernels. The build names the generated table, or nothing where no kernels are built in.
#include "cuda/jit/built_in.hpp"

#ifdef STROBE_BUILT_IN_TABLE
extern "C" const char strobe_built_in_kernels[];  // built_in_kernels.S
#else
#define STROBE_BUILT_IN_ARCHITECTURES "none"
#endif

namespace strobe::cuda {

std::span<const BuiltInKernel> built_in_kernels() {
#ifdef STROBE_BUILT_IN_TABLE
  static const BuiltInKernel kernels[] = {
#include STROBE_BUILT_IN_TABLE
  };
  return kernels;
#else
  return {};
#endif
}

const char* built_in_architectures() { return STROBE_BUILT_IN_ARCHITECTURES; }

}  // namespace strobe::cuda
