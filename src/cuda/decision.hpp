// What plan decided for a GPU and the CUDA backend carries out. Plain data, as base/decision.hpp is for the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/decision.hpp"
#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

inline constexpr int kMaxKernels = 5;

/// What happens before attention, whatever family computes it: the append kernel (sm80/append).
struct Preparation {
  bool needed = false;
  KernelKey kernel;
  std::size_t workspace_bytes = 0;  // the first of the decision's; a multiple of 256
};

struct CudaDecision {
  KernelKey kernels[kMaxKernels];  // in the order of their launches, the kernel that the plan is named after first
  int kernel_count = 0;
  Variant variant = Variant::kPrefill;
  int query_tile = 0, key_block = 0;  // rows and keys of a tile
  std::int64_t split_keys = 0;        // keys per split; 0: one block sees all keys of a query
  std::int64_t max_splits = 1;        // of any sequence
  std::size_t workspace_bytes = 0;
  bool workspace_is_counts = false;  // of one launch, at most 256 bytes (Launcher::counts)
  Preparation preparation;
};

}  // namespace strobe::cuda
