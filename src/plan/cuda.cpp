// Chooses a kernel family for a GPU from the manifest, and says why not the others.
#include "cuda/families.hpp"
#include "plan/plan.hpp"

namespace strobe::plan {
namespace {

/// Whether the family serves the problem on the device; otherwise why not, in one clause.
bool serves(const cuda::Family& family, const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const cuda::KernelRow& row = cuda::row_of(family.id);
  const auto refuse = [&](const auto& reason) {
    if (why_not != nullptr) *why_not = reason();
    return false;
  };
  // A suffix names instructions that later architectures lack.
  const bool too_new = *row.suffix != '\0' && device.architecture / 10 > row.lowest_architecture / 10;
  if (device.architecture < row.lowest_architecture || too_new) {
    return refuse([&] {
      return "needs architecture " + std::to_string(row.lowest_architecture) +
             (*row.suffix != '\0' ? "" : " or later") + ", the device has " + std::to_string(device.architecture);
    });
  }
  if (problem.pass != family.pass) return refuse([] { return "computes the other pass"; });
  if ((row.types >> int(problem.query_type) & 1u) == 0) {
    return refuse([&] { return std::string("does not serve ") + name_of(problem.query_type); });
  }
  return family.serves(problem, device, why_not);
}

CudaChoice choice_of(const cuda::Family& family, const Problem& problem, const CudaDevice& device) {
  return {.kernel = &cuda::row_of(family.id), .why = family.why, .decision = cuda::decide(family, problem, device)};
}

}  // namespace

CudaChoice choose(const Problem& problem, const CudaDevice& device) {
  for (const cuda::Family& family : cuda::families()) {
    if (serves(family, problem, device, nullptr)) return choice_of(family, problem, device);
  }
  std::string reasons;
  for (const cuda::Family& family : cuda::families()) {
    std::string reason;
    if (family.pass != problem.pass || serves(family, problem, device, &reason)) continue;
    if (!reasons.empty()) reasons += "; ";
    reasons += std::string(cuda::row_of(family.id).name) + " " + reason;
  }
  throw Error(
      ErrorCode::kUnsupported, "device", std::string(device.name) + " (CUDA)",
      "the CPU for this problem, since no CUDA kernel serves it: " + (reasons.empty() ? "there is none" : reasons));
}

std::vector<CudaChoice> candidates(const Problem& problem, const CudaDevice& device) {
  std::vector<CudaChoice> result;
  for (const cuda::Family& family : cuda::families()) {
    if (serves(family, problem, device, nullptr)) result.push_back(choice_of(family, problem, device));
  }
  return result;
}

std::vector<Rejection> rejections(const Problem& problem, const CudaDevice& device, const CudaChoice& choice) {
  std::vector<Rejection> result;
  for (const cuda::Family& family : cuda::families()) {
    const cuda::KernelRow& row = cuda::row_of(family.id);
    if (&row == choice.kernel) continue;
    std::string reason;
    if (serves(family, problem, device, &reason)) reason = "slower than " + std::string(choice.kernel->name);
    result.push_back({row.name, std::move(reason)});
  }
  return result;
}

}  // namespace strobe::plan
