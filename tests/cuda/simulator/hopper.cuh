// The functions of src/cuda/device/hopper.cuh for the simulated GPU, which takes this file in its place.
#pragma once

#include "cuda/device/element.cuh"
#include "cuda/simulator/background.hpp"

namespace strobe::cuda::ptx {

inline void mbarrier_init(u32 barrier, int arrivals) { sim::mbarrier_init(barrier, arrivals); }
inline void fence_mbarrier_init() { sim::fence_mbarrier_init(); }
inline void mbarrier_arrive(u32 barrier) { sim::mbarrier_arrive(barrier); }
inline void mbarrier_arrive_expect_tx(u32 barrier, int bytes) { sim::mbarrier_arrive_expect_tx(barrier, bytes); }

inline int cluster_rank() { return sim::cluster_rank(); }
inline u32 cluster_address(u32 address, int rank) { return sim::cluster_address(address, rank); }
inline void cluster_sync() { sim::cluster_sync(); }
inline void mbarrier_arrive_cluster(u32 barrier) { sim::mbarrier_arrive_cluster(barrier); }
inline void st_async(u32 to, u32 value, u32 barrier) { sim::store_async(to, value, barrier); }

inline bool mbarrier_try_wait_parity(u32 barrier, u32 parity) { return sim::mbarrier_try_wait_parity(barrier, parity); }
inline bool mbarrier_try_wait_parity_cluster(u32 barrier, u32 parity) {
  return sim::mbarrier_try_wait_parity(barrier, parity);
}

inline void nanosleep(u32) {}

template <typename T>
inline T ld_global_nc(const void* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof(T) != 0) sim::fail("reads from an address that is not aligned");
  return *static_cast<const T*>(from);
}
inline u32 ld_global_nc_u32(const void* from) { return ld_global_nc<u32>(from); }
inline uint4 ld_global_nc_16(const void* from) { return ld_global_nc<uint4>(from); }

inline void fence_proxy_async() { sim::fence_proxy_async(); }

constexpr u64 kEvictFirst = 0, kEvictLast = 0;

inline void prefetch_tensormap(const TensorMap&) {}
inline void cp_async_bulk_tensor_load(u32 to, const TensorMap& map, u32 barrier, int dim, int row, int head, int batch,
                                      u64) {
  sim::bulk_tensor_load(to, &map, barrier, {dim, row, head, batch});
}
inline void cp_async_bulk_copy_to_cluster(u32 to, u32 from, u32 barrier, int bytes) {
  sim::bulk_copy_to_cluster(to, from, barrier, bytes);
}
inline void cp_async_bulk_load(u32 to, const void* from, u32 barrier, int bytes) {
  sim::bulk_load(to, from, barrier, bytes);
}
inline void cp_async_bulk_tensor_store(const TensorMap& map, u32 from, int dim, int row, int head, int batch) {
  sim::bulk_tensor_store(&map, from, {dim, row, head, batch});
}
inline void cp_async_bulk_store(void* to, u32 from, int bytes) { sim::bulk_store(to, from, bytes); }
inline void cp_reduce_async_bulk_add_f32(float* to, u32 from, int bytes) { sim::bulk_add_f32(to, from, bytes); }
inline void cp_async_bulk_commit_group() { sim::bulk_commit_group(); }
inline void cp_async_bulk_wait_group_read() { sim::bulk_wait_group_read(); }
inline void cp_async_bulk_wait_group() { sim::bulk_wait_group(); }

inline void griddepcontrol_wait() { sim::wait_for_grids(); }

template <int kRegisters>
inline void setmaxnreg_inc() {
  sim::set_most_registers(kRegisters, true);
}
template <int kRegisters>
inline void setmaxnreg_dec() {
  sim::set_most_registers(kRegisters, false);
}

inline void wgmma_fence() { sim::wgmma_fence(); }
inline void wgmma_commit_group() { sim::wgmma_commit_group(); }
template <int kPending>
inline void wgmma_wait_group() {
  sim::wgmma_wait_group(kPending);
}

inline void renew(float&) {}

template <class Element>
constexpr sim::Operand kOperandOf = sim::Operand::kBFloat16;
template <>
constexpr sim::Operand kOperandOf<Float16> = sim::Operand::kFloat16;

template <class Element, int kN>
struct Wgmma {
  template <int kTransposed, int kLeftTransposed = 0>
  static void set(float (&d)[kN / 8][4], u64 a, u64 b) {
    start(false, kLeftTransposed != 0, kTransposed != 0, d, nullptr, a, b);
  }
  template <int kTransposed, int kLeftTransposed = 0>
  static void add(float (&d)[kN / 8][4], u64 a, u64 b) {
    start(true, kLeftTransposed != 0, kTransposed != 0, d, nullptr, a, b);
  }
  template <int kTransposed>
  static void set(float (&d)[kN / 8][4], const u32 (&a)[4], u64 b) {
    start(false, false, kTransposed != 0, d, a, 0, b);
  }
  template <int kTransposed>
  static void add(float (&d)[kN / 8][4], const u32 (&a)[4], u64 b) {
    start(true, false, kTransposed != 0, d, a, 0, b);
  }

 private:
  static void start(bool adds, bool a_transposed, bool b_transposed, float (&d)[kN / 8][4], const u32* registers, u64 a,
                    u64 b) {
    sim::wgmma({kOperandOf<Element>, kN, adds, a_transposed, b_transposed, d[0], registers, a, b});
  }
};

}  // namespace strobe::cuda::ptx
