// Which kernel is meant: a row of the manifest and the values of its options. Plain data: plans hold keys, launching
// looks them up, and neither allocates.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/device.hpp"

namespace strobe::cuda {

enum class KernelId : int {
#define STROBE_CUDA_KERNEL(id, name, entry, function, options, lowest, suffix, types, summary) id,
#include "cuda/kernels.inc"
  kCount
};
inline constexpr int kKernelCount = int(KernelId::kCount);
inline constexpr int kMaxOptions = 6;

struct KernelKey {
  KernelId id{};
  int values[kMaxOptions] = {};  // of the row's options, in its order; the rest stay 0
  bool operator==(const KernelKey&) const = default;
};

/// A row STROBE_CUDA_KERNEL; kernels.inc says what each column means.
struct KernelRow {
  KernelId id;
  const char* name;      // "cuda.sm80.forward"
  const char* entry;     // "cuda/sm80/forward/entry.cu"
  const char* function;  // "strobe_forward"
  const char* options;   // "STROBE_TYPE STROBE_HEAD_DIM"
  int lowest_architecture;
  const char* suffix;
  unsigned types;
  const char* summary;
};
std::span<const KernelRow> kernel_rows();
const KernelRow& row_of(KernelId id);

/// Sets of architectures, as bits of their place in kArchitectures.
inline constexpr int kArchitectures[] = {80, 86, 89, 90, 100, 120};
/// The architecture whose kernels and tiles serve a device of this compute capability: the last one up to it, so that
/// 87 has the kernels of 86 and 103 those of 100. Below 80 the capability itself, which no kernel serves.
int architecture_of(int capability);

inline constexpr unsigned kEveryArchitecture = 0b111111, kSmallShared = 0b100110, kLargeShared = 0b011001;
inline constexpr unsigned kOnly80 = 0b000001, kOnly90 = 0b001000, kOnly120 = 0b100000, kLargeSharedSince90 = 0b011000;
inline constexpr unsigned kUpTo90 = 0b001111, kUpTo100 = 0b011111, kSince86 = 0b111110, kSince100 = 0b110000;

/// A row STROBE_CUDA_VARIANT.
struct KernelVariant {
  KernelKey key;
  unsigned architectures;
  int threads, shared_bytes, registers, spill_bytes;
};
std::span<const KernelVariant> kernel_variants();

/// Whether the variant is built and checked for `architecture` (one of kArchitectures).
bool includes(const KernelVariant& variant, int architecture);

/// {"STROBE_TYPE=2", "STROBE_HEAD_DIM=128"}
std::vector<std::string> options_of(const KernelKey& key);
/// "cuda.sm80.forward STROBE_TYPE=2 STROBE_HEAD_DIM=128"
std::string describe(const KernelKey& key);

/// GPUs that plans can be made for without having them, one or two of each architecture.
std::span<const CudaDevice> known_devices();
/// One of them by name ("h200", "rtx4090") or by architecture ("sm_90"); null if there is none.
const CudaDevice* known_device(const std::string& name);

}  // namespace strobe::cuda
