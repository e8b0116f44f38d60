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

std::string splits_in_words(const Decision& decision) {
  if (decision.split_keys == 0) return "none";
  return "of " + std::to_string(decision.split_keys) + " keys, at most " + std::to_string(decision.max_splits);
}

std::string packing_in_words(const Decision& decision) {
  if (decision.packed_heads == 0) return "none: each task lays out the keys it reads";
  return "keys and values of " + std::to_string(decision.packed_heads) + " KV heads of " +
         std::to_string(decision.packed_sequences) + " sequences at a time, once for all tasks";
}

}  // namespace

std::string explain(const Problem& problem, const CpuDevice& device, const Choice& choice) {
  const Decision& decision = choice.decision;
  std::string text;
  text += "kernel     " + std::string(choice.kernel->name) + ": " + choice.kernel->summary + "\n";
  text += "why        " + std::string(choice.why) + "\n";
  text += "tile       " + std::to_string(decision.query_tile) + " query rows, blocks of " +
          std::to_string(decision.key_block) + " keys\n";
  text += "splits     " + splits_in_words(decision) + "\n";
  if (decision.variant == Variant::kPrefill) text += "packing    " + packing_in_words(decision) + "\n";
  text += "workspace  " + kibibytes(decision.workspace_bytes()) + ": " + std::to_string(decision.workers) + " x " +
          kibibytes(decision.worker_bytes) + " for workers, " + kibibytes(decision.shared_bytes) + " shared\n";
  for (const Rejection& rejection : rejections(problem, device, choice)) {
    text += "not        " + std::string(rejection.kernel->name) + ": " + rejection.reason + "\n";
  }
  return text;
}

}  // namespace strobe::plan
