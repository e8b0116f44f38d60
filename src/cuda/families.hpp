// The kernel families: each folder of kernels that plan can choose, from the manifest's STROBE_CUDA_FAMILY rows.
#pragma once

#include <span>
#include <string>

#include "base/problem.hpp"
#include "cuda/decision.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda {

struct Family {
  KernelId id;  // its main kernel, which plans are named after
  Pass pass;
  const char* why;  // one sentence: when it is the one to take
  /// Whether it computes this; otherwise why not, in one clause, where `why_not` is given. The architecture, the pass
  /// and the type are known to be among the manifest row's.
  bool (*serves)(const Problem& problem, const CudaDevice& device, std::string* why_not);
  /// Kernels, tiles, splits, workspace. Allocates nothing.
  void (*decide)(const Problem& problem, const CudaDevice& device, CudaDecision& decision);
  /// Puts the decision's kernels on the stream. Allocates nothing and waits for nothing.
  void (*run)(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher,
              void* workspace);
};

/// Best first.
std::span<const Family> families();
/// What the family decides, and what happens before it.
CudaDecision decide(const Family& family, const Problem& problem, const CudaDevice& device);
/// The family whose decision this is.
const Family& family_of(const CudaDecision& decision);

}  // namespace strobe::cuda
