// The text of every kernel, as embedded when the library was built (cmake/kernel_text.cmake).
#pragma once

#include <span>
#include <string_view>

namespace strobe::cuda {

struct KernelText {
  std::string_view path;  // below src/, as #include lines name it: "cuda/device/mma.cuh"
  std::string_view text;
};

/// All texts, sorted by path.
std::span<const KernelText> kernel_texts();

}  // namespace strobe::cuda
