// Puts the simulated GPU in the place of a real one, before the library looks for any.
#include <cstdlib>

namespace {

[[maybe_unused]] const bool ready = [] {
  setenv("STROBE_CUDA_DRIVER", STROBE_FAKE_DRIVER, 1);
  setenv("STROBE_NVRTC", STROBE_SIMULATED_NVRTC, 1);
  setenv("STROBE_CACHE_DIR", STROBE_SIMULATED_KERNELS, 1);
  unsetenv("STROBE_JIT");
  return true;
}();

}  // namespace
