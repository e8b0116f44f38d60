// A plan in words.
#include <cstdio>

#include "plan/plan.hpp"

namespace strobe::plan {
namespace {

std::string kibibytes(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f KiB", double(bytes) / 1024.0);
  return text;
}

constexpr std::size_t kHeadingWidth = 11;

template <typename Decided>
std::string tile_in_words(const Decided& decision) {
  return std::to_string(decision.query_tile) + " query rows, blocks of " + std::to_string(decision.key_block) + " keys";
}

template <typename Decided>
std::string splits_in_words(const Decided& decision) {
  if (decision.split_keys == 0) return "none";
  return "of " + std::to_string(decision.split_keys) + " keys, at most " + std::to_string(decision.max_splits);
}

std::string line(const char* heading, const std::string& text) {
  std::string result = heading;
  result.resize(kHeadingWidth, ' ');
  return result + text + "\n";
}

std::string not_chosen(const std::vector<Rejection>& rejected) {
  std::string text;
  for (const Rejection& rejection : rejected) {
    text += line("not", std::string(rejection.kernel) + ": " + rejection.reason);
  }
  return text;
}

std::string packing_in_words(const Decision& decision) {
  if (decision.packed_heads == 0) return "none: each task lays out the keys it reads";
  return "keys and values of " + std::to_string(decision.packed_heads) + " KV heads of " +
         std::to_string(decision.packed_sequences) + " sequences at a time, once for all tasks";
}

}  // namespace

std::string explain(const Problem& problem, const CpuDevice& device, const Choice& choice) {
  const Decision& decision = choice.decision;
  return line("kernel", std::string(choice.kernel->name) + ": " + choice.kernel->summary) + line("why", choice.why) +
         line("tile", tile_in_words(decision)) + line("splits", splits_in_words(decision)) +
         (decision.variant == Variant::kPrefill ? line("packing", packing_in_words(decision)) : "") +
         line("workspace", kibibytes(decision.workspace_bytes()) + ": " + std::to_string(decision.workers) + " x " +
                               kibibytes(decision.worker_bytes) + " for workers, " + kibibytes(decision.shared_bytes) +
                               " shared") +
         not_chosen(rejections(problem, device, choice));
}

std::string explain(const Problem& problem, const CudaDevice& device, const CudaChoice& choice) {
  const cuda::CudaDecision& decision = choice.decision;
  std::string variants;
  if (decision.preparation.needed) variants += line("before", cuda::describe(decision.preparation.kernel));
  for (int i = 0; i < decision.kernel_count; ++i) {
    variants += line(i == 0 ? "variant" : "then", cuda::describe(decision.kernels[i]));
  }
  return line("device", std::string(device.name) + ", architecture " + std::to_string(device.architecture) + ", " +
                            std::to_string(device.multiprocessors) + " multiprocessors, " +
                            kibibytes(std::size_t(device.shared_bytes_per_block)) + " of shared memory a block") +
         line("kernel", std::string(choice.kernel->name) + ": " + choice.kernel->summary) + line("why", choice.why) +
         variants + line("tile", tile_in_words(decision)) + line("splits", splits_in_words(decision)) +
         line("workspace", kibibytes(decision.workspace_bytes)) + not_chosen(rejections(problem, device, choice));
}

}  // namespace strobe::plan
