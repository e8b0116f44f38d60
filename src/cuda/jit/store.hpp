// Where kernels come from: built into the library, the disk cache, or NVRTC, in this order.
#pragma once

#include <string>
#include <vector>

#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

enum class Source : int { kBuiltIn = 0, kDisk = 1, kCompiled = 2 };

/// What cuModuleLoadData takes: a cubin, or PTX where the compiler does not know the architecture.
struct Image {
  const void* built_in = nullptr;  // memory of the library, or null
  std::vector<char> bytes;         // otherwise
  Source source = Source::kBuiltIn;
  std::string origin;  // "compiled by NVRTC 13.0"

  const void* data() const { return built_in != nullptr ? built_in : bytes.data(); }
};

/// The kernel for an architecture, from `first` or a later source.
/// @throws Error (kUnsupported) if it is nowhere and cannot be compiled, (kInternal) if it does not compile, with the
/// compiler's log.
Image find_image(const KernelKey& key, int architecture, Source first = Source::kBuiltIn);

}  // namespace strobe::cuda
