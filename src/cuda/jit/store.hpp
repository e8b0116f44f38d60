// Where kernels come from: built into the library, the disk cache, or NVRTC, in this order.
#pragma once

#include <string>
#include <vector>

#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

class Nvrtc;

enum class Source : int { kBuiltIn = 0, kDisk = 1, kCompiled = 2 };

/// What cuModuleLoadData takes: a cubin, or PTX where the compiler does not know the architecture.
struct Image {
  const void* built_in = nullptr;  // memory of the library, or null
  std::vector<char> bytes;         // otherwise
  Source source = Source::kBuiltIn;
  std::string origin;  // "compiled by NVRTC 13.0"

  const void* data() const { return built_in != nullptr ? built_in : bytes.data(); }
};

/// How far the store may go for a kernel: STROBE_JIT=on, cached-only (built in or from the disk cache) or off (built
/// in).
enum class Jit { kOn, kCachedOnly, kOff };

struct StoreSettings {
  Jit jit = Jit::kOn;
  std::string cache_folder;         // "": no disk cache
  const Nvrtc* compiler = nullptr;  // null: what nvrtc() finds, looked for only if it is needed
  int newest_compiler = 0;          // the driver's major version, above which a compiler does not serve; 0: any
};
/// @throws Error if STROBE_JIT is something else.
StoreSettings settings_from_environment();

/// The kernel for a device, from `first` or a later source. What is compiled goes into the disk cache.
/// @throws Error (kUnsupported) if it is nowhere and cannot be compiled, (kInternal) if it does not compile, with the
/// compiler's log.
Image find_image(const KernelKey& key, const CudaDevice& device, const StoreSettings& settings,
                 Source first = Source::kBuiltIn);

/// Names the entry in the disk cache: "cuda.sm80.forward-2.128.128.0-sm_90", and the hash that finds it.
std::string cache_label(const KernelKey& key, const CudaDevice& device);
std::string cache_hash(const KernelKey& key, const CudaDevice& device);

}  // namespace strobe::cuda
