// Chooses a CPU kernel from the manifest, decides splits, and says why not the others.
#include "plan/plan.hpp"

#include <algorithm>

#include "cpu/cpu.hpp"

namespace strobe::plan {
namespace {

constexpr unsigned bit(DataType type) { return 1u << int(type); }
constexpr unsigned kBFloat16Bit = bit(DataType::kBFloat16);
constexpr unsigned kGradientTypes = bit(DataType::kFloat32) | bit(DataType::kFloat16) | kBFloat16Bit;
constexpr unsigned kAllTypes = kGradientTypes | bit(DataType::kFloat8E4M3) | bit(DataType::kFloat8E5M2);

constexpr Kernel kKernels[] = {
#define STROBE_KERNEL(name, variant, isa, types, summary) {name, Variant::variant, Isa::isa, types, summary},
#include "plan/kernels.inc"
#undef STROBE_KERNEL
};

/// How keys are split among workers: by lengths alone, so that results do not depend on the number of threads.
struct SplitRule {
  std::int64_t least_keys, most_keys;  // of one split
  std::int64_t longest_unsplit;        // sequences up to this many keys are not split
};
constexpr SplitRule kDecodeSplits{.least_keys = 1024, .most_keys = 4096, .longest_unsplit = 1024};
constexpr SplitRule kPrefillSplits{.least_keys = 4096, .most_keys = 4096, .longest_unsplit = 8192};
/// Where lengths leave a choice: merging costs less the fewer splits there are.
constexpr std::int64_t kWantedSplits = 8;

/// A prefill with at least this many tasks of kTaskRows rows has work for everybody: splitting its keys would only cost
/// memory for the parts.
constexpr std::int64_t kEnoughTasks = 32, kTaskRows = 128;

/// Query rows a KV head up to which the decode kernel is the faster one.
constexpr std::int64_t kDecodeRows = 8;

/// Query rows a KV head from which on keys and values are packed.
constexpr std::int64_t kPackingRows = 512;

/// Keys and query rows a KV head from which on float32 and float16 are quicker on tile registers, as sums of bf16
/// values, than in vectors: splitting keys must pay off in rows that meet them. Measured on Granite Rapids, d64 and
/// d128 (cpu/forward/README.md).
struct SplitSizes {
  std::int64_t keys, rows;
};
constexpr SplitSizes kFloat32Splits{.keys = 1024, .rows = 512}, kFloat16Splits{.keys = 256, .rows = 64};

/// Splits end on multiples of this, so that only the last block of a sequence is ragged.
constexpr std::int64_t kSplitUnit = 128;

Variant variant_of(const Problem& problem) {
  if (problem.pass == Pass::kBackward) return Variant::kBackward;
  const bool few_rows = !problem.packed_queries && problem.query_length * problem.group() <= kDecodeRows;
  return few_rows ? Variant::kDecode : Variant::kPrefill;
}

const char* reason_for(Variant variant, const Problem& problem) {
  switch (variant) {
    case Variant::kDecode:
      return "few query rows a KV head: memory-bound, so each key is read once for the whole group";
    case Variant::kBackward:
      return "the best instruction set of this machine that has a backward kernel for the type";
    case Variant::kPrefill:
      break;
  }
  return problem.packed_queries ? "packed queries: prefill, and sequences of few rows in the decode kernel"
                                : "many query rows a KV head: compute-bound";
}

/// Whether splitting is left out whatever the length. The batch may count here only where the caller lets results
/// depend on it; packed keys have a total length but no known longest sequence.
bool never_splits(const Problem& problem, Variant variant) {
  if (problem.packed_keys) return true;
  if (variant == Variant::kDecode) return false;
  const std::int64_t row_groups = (problem.total_queries * problem.group() + kTaskRows - 1) / kTaskRows;
  return problem.batch_invariant || row_groups * problem.kv_heads >= kEnoughTasks;
}

std::int64_t split_keys_of(const Problem& problem, Variant variant) {
  if (problem.splits == 1) return 0;
  if (problem.splits > 1) {
    const std::int64_t keys = (problem.key_length + problem.splits - 1) / problem.splits;
    return std::max<std::int64_t>((keys + kSplitUnit - 1) / kSplitUnit, 1) * kSplitUnit;
  }
  if (never_splits(problem, variant)) return 0;
  const SplitRule rule = variant == Variant::kDecode ? kDecodeSplits : kPrefillSplits;
  if (problem.key_length <= rule.longest_unsplit) return 0;
  if (problem.batch_invariant) return rule.least_keys;  // the longest sequence of the batch must not matter
  const std::int64_t keys = problem.key_length / kWantedSplits / rule.least_keys * rule.least_keys;
  return std::clamp(keys, rule.least_keys, rule.most_keys);
}

/// Query rows of a KV head in a sequence, on average where sequences are packed.
std::int64_t rows_of_head(const Problem& problem) {
  return problem.total_queries * problem.group() / std::max<std::int64_t>(problem.batch, 1);
}

/// Whether each key meets enough query rows to be laid out once for all tasks. Of a cache, any part may be in use.
bool packs_keys(const Problem& problem) {
  return rows_of_head(problem) >= kPackingRows && problem.page_size == 0 && !problem.has_key_lengths &&
         !problem.has_cache_index;
}

bool serves(const Kernel& kernel, const Problem& problem) { return (kernel.types & bit(problem.query_type)) != 0; }

/// Kernels of AVX512_BF16 are there for the dot product alone.
bool lacks_quick_dot(const Kernel& kernel, const CpuDevice& device) {
  return kernel.isa == Isa::kAvx512Bf16 && !device.dot_pays;
}

bool lacks_tiles(const Kernel& kernel, const CpuDevice& device) {
  return kernel.isa == Isa::kAmxBf16 && device.allows_tiles != nullptr && !device.allows_tiles();
}

/// A sequence's kernel must not depend on the others where the caller wants the same bits in any batch.
bool splits_too_little(const Kernel& kernel, const Problem& problem, const CpuDevice& device) {
  if (kernel.isa != Isa::kAmxBf16 || problem.query_type == DataType::kBFloat16 || device.short_splits_pay) return false;
  if (problem.packed_keys && problem.batch_invariant) return true;
  const std::int64_t keys =
      problem.packed_keys ? problem.total_keys / std::max<std::int64_t>(problem.batch, 1) : problem.key_length;
  const SplitSizes pays = problem.query_type == DataType::kFloat32 ? kFloat32Splits : kFloat16Splits;
  return keys < pays.keys || rows_of_head(problem) < pays.rows;
}

}  // namespace

std::span<const Kernel> kernels() { return kKernels; }

Choice choose(const Problem& problem, const CpuDevice& device) {
  const Variant variant = variant_of(problem);
  for (const Kernel& kernel : kKernels) {
    if (kernel.variant != variant || kernel.isa > device.best || !serves(kernel, problem)) continue;
    if (lacks_quick_dot(kernel, device) || splits_too_little(kernel, problem, device)) continue;
    if (lacks_tiles(kernel, device)) continue;
    Choice choice{.kernel = &kernel, .why = reason_for(variant, problem), .decision = {}};
    Decision& decision = choice.decision;
    decision.variant = variant;
    decision.isa = kernel.isa;
    decision.workers = device.threads;
    if (variant == Variant::kBackward) {
      cpu::size_backward(problem, decision);
      return choice;
    }
    decision.decode_rows = kDecodeRows;
    decision.split_keys = split_keys_of(problem, variant);
    if (decision.split_keys > 0) {
      decision.max_splits = (problem.key_length + decision.split_keys - 1) / decision.split_keys;
    }
    if (variant == Variant::kDecode) {
      cpu::size_decode(problem, decision);
    } else {
      decision.packs_keys = packs_keys(problem);
      cpu::size_prefill(problem, decision);
    }
    return choice;
  }
  throw Error(ErrorCode::kUnsupported, "query", std::string(name_of(problem.query_type)),
              variant == Variant::kBackward ? "float32, float16 or bfloat16: the types with gradients"
                                            : "a floating-point type");
}

std::vector<Rejection> rejections(const Problem& problem, const CpuDevice& device, const Choice& choice) {
  std::vector<Rejection> result;
  for (const Kernel& kernel : kKernels) {
    if (&kernel == choice.kernel) continue;
    std::string reason;
    if (kernel.variant != choice.kernel->variant) {
      if (kernel.variant == Variant::kBackward || choice.kernel->variant == Variant::kBackward) {
        reason = "computes the other pass";
      } else if (kernel.variant == Variant::kDecode) {
        reason = problem.packed_queries
                     ? "serves only the sequences with at most " + std::to_string(kDecodeRows) + " query rows"
                     : "for at most " + std::to_string(kDecodeRows) + " query rows a KV head, here " +
                           std::to_string(problem.query_length * problem.group());
      } else {
        reason = "for more than " + std::to_string(kDecodeRows) + " query rows a KV head";
      }
    } else if (kernel.isa > device.best) {
      reason = device.limited ? "STROBE_CPU or this machine excludes " + std::string(name_of(kernel.isa))
                              : "this machine has no " + std::string(name_of(kernel.isa));
    } else if (!serves(kernel, problem)) {
      reason = "does not serve " + std::string(name_of(problem.query_type));
    } else if (lacks_quick_dot(kernel, device)) {
      reason = "this machine's bf16 dot product is slower than float32; STROBE_CPU=avx512_bf16 insists";
    } else if (splits_too_little(kernel, problem, device)) {
      reason = "splits " + std::string(name_of(problem.query_type)) +
               " into bf16 values, which pays for longer sequences and more queries; STROBE_CPU=amx_bf16 insists";
    } else if (lacks_tiles(kernel, device)) {
      reason = "the system does not let this process use the registers of AMX";
    } else {
      reason = "slower than " + std::string(choice.kernel->name);
    }
    result.push_back({kernel.name, std::move(reason)});
  }
  return result;
}

}  // namespace strobe::plan
