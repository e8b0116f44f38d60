// Kernels that were compiled when the library was built (STROBE_BUILTIN_KERNELS). The table is generated in the build
// tree (cmake/kernels.cmake); without built-in kernels it is empty.
#pragma once

#include <cstddef>
#include <span>

#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

struct BuiltInKernel {
  KernelKey key;
  int architecture;  // of the devices that run it
  const char* data;
  std::size_t bytes;
};
std::span<const BuiltInKernel> built_in_kernels();

/// The architectures that kernels are built in for, "80;90", or "none".
const char* built_in_architectures();

}  // namespace strobe::cuda
