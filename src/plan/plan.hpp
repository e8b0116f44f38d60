// The brain: from a Problem and a description of the device to a Decision, by the manifest (kernels.inc) alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/decision.hpp"
#include "base/device.hpp"
#include "base/problem.hpp"
#include "cuda/decision.hpp"

namespace strobe::plan {

/// One row of the manifest.
struct Kernel {
  const char* name;  // "cpu.forward.avx512"
  Variant variant;
  Isa isa;
  unsigned types;       // bit 1 << DataType for each input type it serves
  const char* summary;  // one line
};

/// All rows, best first within a variant.
std::span<const Kernel> kernels();

struct Choice {
  const Kernel* kernel = nullptr;
  const char* why = "";
  Decision decision;
};

/// @throws Error (kUnsupported) if no kernel serves the problem.
Choice choose(const Problem& problem, const CpuDevice& device);

/// What is chosen for a GPU: a kernel family, named after its first kernel. Needs no GPU.
struct CudaChoice {
  const cuda::KernelRow* kernel = nullptr;
  const char* why = "";
  cuda::CudaDecision decision;
};

/// @throws Error (kUnsupported) if no kernel serves the problem, with each family's reason.
CudaChoice choose(const Problem& problem, const CudaDevice& device);

/// Every family that serves the problem, best first.
std::vector<CudaChoice> candidates(const Problem& problem, const CudaDevice& device);

/// The kernels that were not chosen, each with its reason.
struct Rejection {
  const char* kernel;
  std::string reason;
};
std::vector<Rejection> rejections(const Problem& problem, const CpuDevice& device, const Choice& choice);
std::vector<Rejection> rejections(const Problem& problem, const CudaDevice& device, const CudaChoice& choice);

/// The choice, why, tiles, splits, workspace and rejections, a line each.
std::string explain(const Problem& problem, const CpuDevice& device, const Choice& choice);
std::string explain(const Problem& problem, const CudaDevice& device, const CudaChoice& choice);

/// Floating-point operations of the problem by the FlashAttention convention (forward 4 * visible pairs * dims with
/// causal and window counted by area; backward 2.5 times that), and the bytes that must move at least once.
struct Cost {
  double flops = 0, bytes = 0;
};
Cost cost(const Problem& problem);

}  // namespace strobe::plan
