// What a plan knows about the machine: enough to choose a kernel, and nothing that only running could tell.
#pragma once

#include <cstdint>

namespace strobe {

/// CPU instruction sets that have kernels, each including the ones before it.
enum class Isa : std::int32_t { kSse4 = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };
inline constexpr int kIsaCount = 4;

/// "sse4", "avx2", "avx512", "avx512_bf16".
const char* name_of(Isa isa);

struct CpuDevice {
  Isa best = Isa::kSse4;  // the highest instruction set that may be used: the machine's, or STROBE_CPU
  bool limited = false;   // STROBE_CPU lowered `best`
  bool dot_pays = true;   // the bf16 dot product is quicker than converting to float32
  int threads = 1;        // concurrency of the executor
  std::int64_t l1_bytes = 32 << 10, l2_bytes = 512 << 10, l3_bytes = 8 << 20;
};

}  // namespace strobe
