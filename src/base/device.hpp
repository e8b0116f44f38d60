// What a plan knows about the machine: enough to choose a kernel, and nothing that only running could tell.
#pragma once

#include <cstdint>

namespace strobe {

/// CPU instruction sets that have kernels, each including the ones before it.
enum class Isa : std::int32_t { kSse4 = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kAmxBf16 = 4 };
inline constexpr int kIsaCount = 5;

/// "sse4", "avx2", "avx512", "avx512_bf16", "amx_bf16".
const char* name_of(Isa isa);

struct CpuDevice {
  Isa best = Isa::kSse4;  // the highest instruction set that may be used: the machine's, or STROBE_CPU
  bool limited = false;   // STROBE_CPU lowered `best`
  bool dot_pays = true;   // the bf16 dot product is quicker than converting to float32
  /// Splitting float32 and float16 into bf16 values for the tile registers of AMX is quicker for few keys, too.
  bool short_splits_pay = true;
  /// Asks the system, once, to let this process use the registers of AMX. Null: there is no need to ask.
  bool (*allows_tiles)() = nullptr;
  int threads = 1;  // concurrency of the executor
  std::int64_t l1_bytes = 32 << 10, l2_bytes = 512 << 10, l3_bytes = 8 << 20;
};

/// An NVIDIA GPU. Plain data, so that plans for a GPU are made and tested where there is none (cuda::known_devices).
struct CudaDevice {
  int index = 0;            // the driver's number of it
  int architecture = 80;    // what kernels and tiles are chosen by: 80, 86, 89, 90, 100 or 120 (cuda::architecture_of)
  int capability = 80;      // what it is, as major * 10 + minor: 87, say, where architecture is 86
  int multiprocessors = 0;  // streaming multiprocessors
  int shared_bytes_per_block = 0;           // the most that one block may ask for
  int shared_bytes_per_multiprocessor = 0;  // what the blocks on one share; each costs 1 KiB more than it asks for
  std::int64_t l2_bytes = 0, memory_bytes = 0;
  char name[64] = {};
  bool tensor_maps = false;  // tensors can be described to its copy engine (TMA), which sm_90 was the first to have
};

}  // namespace strobe
