// Looks at the machine once: instruction sets, caches, and the limit that STROBE_CPU sets.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "cpu/cpu.hpp"

namespace strobe::cpu {
namespace {

/// clang 14's __builtin_cpu_supports does not know the name "f16c".
bool supports_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

/// AMX-TILE and AMX-BF16, and a system that saves the tile registers when it switches threads (XCR0).
bool supports_amx() {
  constexpr unsigned kBfloat16 = 1u << 22, kTile = 1u << 24, kTileState = 3u << 17;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return false;
  unsigned saved = 0, high = 0;
  asm("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if ((saved & kTileState) != kTileState) return false;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBfloat16) != 0 && (edx & kTile) != 0;
}

/// Linux gives a process the 8 KiB of tile registers when it asks for them, and refuses where signal stacks are too
/// small for them. Without a need nobody should ask: later signal stacks must be larger, too.
bool allows_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
}

Isa best_supported() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && supports_f16c();
  if (!avx2) return Isa::kSse4;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return Isa::kAvx2;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::kAvx512;
  return supports_amx() ? Isa::kAmxBf16 : Isa::kAvx512Bf16;
}

/// STROBE_CPU as an instruction set that the machine has.
Isa limited_by_environment(Isa supported) {
  const char* wanted = std::getenv("STROBE_CPU");
  if (wanted == nullptr || *wanted == '\0') return supported;
  std::string available;
  for (int id = 0; id <= int(supported); ++id) {
    if (std::strcmp(wanted, name_of(Isa(id))) == 0) return Isa(id);
    available += (id == 0 ? "" : ", ") + std::string(name_of(Isa(id)));
  }
  throw Error(ErrorCode::kInvalidArgument, "environment variable STROBE_CPU", wanted,
              "an instruction set that this machine has: " + available);
}

/// Whether STROBE_CPU names this very instruction set.
bool insists_on(Isa isa) {
  const char* wanted = std::getenv("STROBE_CPU");
  return wanted != nullptr && std::strcmp(wanted, name_of(isa)) == 0;
}

/// Intel's cores with AVX512_BF16 (Emerald Rapids, measured) start one dot product every two cycles but two FMAs each
/// cycle: 88 GFLOP/s a core against 165. AMD's Zen 4 and 5 start both at the same rate.
bool dot_pays() { return !__builtin_cpu_is("intel") || insists_on(Isa::kAvx512Bf16); }

std::int64_t cache_bytes(int name, std::int64_t otherwise) {
  const long bytes = sysconf(name);
  return bytes > 0 ? bytes : otherwise;
}

CpuDevice look() {
  CpuDevice device;
  const Isa supported = best_supported();
  device.best = limited_by_environment(supported);
  device.limited = device.best != supported;
  device.dot_pays = dot_pays();
  device.short_splits_pay = insists_on(Isa::kAmxBf16);
  device.allows_tiles = allows_tiles;
  device.l1_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, device.l1_bytes);
  device.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE, device.l2_bytes);
  device.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE, device.l3_bytes);
  return device;
}

}  // namespace

const CpuDevice& this_machine() {
  static const CpuDevice device = look();
  return device;
}

}  // namespace strobe::cpu
