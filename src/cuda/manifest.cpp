// The manifest's CUDA rows as tables.
#include <cstring>

#include "cuda/kernel_key.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

constexpr unsigned bit(DataType type) { return 1u << int(type); }
[[maybe_unused]] constexpr unsigned kHalfTypes = bit(DataType::kFloat16) | bit(DataType::kBFloat16);
[[maybe_unused]] constexpr unsigned kGradientTypes = kHalfTypes | bit(DataType::kFloat32);

constexpr KernelRow kRows[] = {
#define STROBE_CUDA_KERNEL(id, name, entry, function, options, lowest, suffix, types, summary) \
  {KernelId::id, name, entry, function, options, lowest, suffix, types, summary},
#include "cuda/kernels.inc"
};

#define STROBE_BRACES(...) \
  { __VA_ARGS__ }
constexpr KernelVariant kVariants[] = {
#define STROBE_CUDA_VARIANT(id, architectures, values, threads, shared_bytes, registers, spill_bytes) \
  {{KernelId::id, STROBE_BRACES values}, architectures, threads, shared_bytes, registers, spill_bytes},
#include "cuda/kernels.inc"
};
#undef STROBE_BRACES

}  // namespace

std::span<const KernelRow> kernel_rows() { return kRows; }
const KernelRow& row_of(KernelId id) { return kRows[int(id)]; }
std::span<const KernelVariant> kernel_variants() { return kVariants; }

int architecture_of(int capability) {
  int result = capability;
  for (const int architecture : kArchitectures) {
    if (architecture <= capability) result = architecture;
  }
  return result;
}

bool includes(const KernelVariant& variant, int architecture) {
  if (architecture < row_of(variant.key.id).lowest_architecture) return false;
  for (unsigned place = 0; place < std::size(kArchitectures); ++place) {
    if (kArchitectures[place] == architecture) return (variant.architectures >> place & 1) != 0;
  }
  return false;
}

std::vector<std::string> options_of(const KernelKey& key) {
  std::vector<std::string> options;
  const char* names = row_of(key.id).options;
  for (int value : key.values) {
    const std::size_t length = std::strcspn(names, " ");
    if (length == 0) break;
    options.push_back(std::string(names, length) + "=" + std::to_string(value));
    names += length + (names[length] == ' ');
  }
  return options;
}

std::string describe(const KernelKey& key) {
  std::string text = row_of(key.id).name;
  for (const std::string& option : options_of(key)) text += " " + option;
  return text;
}

}  // namespace strobe::cuda
