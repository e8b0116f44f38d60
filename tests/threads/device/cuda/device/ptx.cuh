// The words that blocks agree by, as atomics of the CPU, and blocks of one thread: for device code that threads of the
// CPU run in the place of blocks. The device's memory model has the same orders, under other names.
#pragma once

#include <atomic>

#define STROBE_DEVICE inline

namespace strobe::cuda {

using u64 = unsigned long long;

namespace ptx {

inline u64 ld_relaxed_u64(const u64* from) {
  return std::atomic_ref<u64>(*const_cast<u64*>(from)).load(std::memory_order_relaxed);
}
inline u64 atom_cas_relaxed_u64(u64* at, u64 expected, u64 value) {
  std::atomic_ref<u64>(*at).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
inline u64 atom_add_relaxed_u64(u64* at, u64 value) {
  return std::atomic_ref<u64>(*at).fetch_add(value, std::memory_order_relaxed);
}
inline u64 atom_add_acq_rel_u64(u64* at, u64 value) {
  return std::atomic_ref<u64>(*at).fetch_add(value, std::memory_order_acq_rel);
}

}  // namespace ptx
}  // namespace strobe::cuda

struct ThreadIndex {
  unsigned x = 0;
};
inline constexpr ThreadIndex threadIdx;
inline void __syncthreads() {}
inline int __syncthreads_or(int value) { return value; }
