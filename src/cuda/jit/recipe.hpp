// How to make a kernel: the text that goes in, the compiler's options, and the hash of both that names the result. What
// NVRTC, the disk cache and the build all start from.
#pragma once

#include <string>
#include <vector>

#include "cuda/jit/text.hpp"
#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

struct Recipe {
  std::vector<KernelText> texts;     // the entry, then everything that it includes, directly or not
  std::vector<std::string> options;  // "-std=c++20", "-DSTROBE_HEAD_DIM=128"; without the compiler's target
};

/// @throws Error (kInternal) if a text includes one that the library does not have.
Recipe recipe_for(const KernelKey& key, int architecture);

/// What the result depends on but for the compiler: texts, options, and the target ("sm_90").
std::string hash_of(const Recipe& recipe, const std::string& target);

}  // namespace strobe::cuda
