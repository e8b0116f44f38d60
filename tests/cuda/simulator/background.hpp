// The instructions of sm_90 that only begin something: what kernels ask the copy engine (copy_engine.cpp) and the
// matrix units (matrix_unit.cpp) for, and how they wait for it.
#pragma once

#include <cstdint>

#include "cuda/simulator/instructions.hpp"

namespace strobe::simulator {

void mbarrier_init(std::uint32_t barrier, int arrivals);
void fence_mbarrier_init();
void mbarrier_arrive(std::uint32_t barrier);
void mbarrier_arrive_expect_tx(std::uint32_t barrier, int bytes);
/// Waits until the phase of this parity has ended, or for a while: then it returns false.
bool mbarrier_try_wait_parity(std::uint32_t barrier, std::uint32_t parity);
void fence_proxy_async();

/// The number of the block that runs in its cluster, and where a block of that number has what lies at an address.
int cluster_rank();
std::uint32_t cluster_address(std::uint32_t address, int rank);
/// Waits for all threads of the cluster.
void cluster_sync();
/// Barriers and places are addresses as cluster_address() makes them.
void mbarrier_arrive_cluster(std::uint32_t barrier);
void store_async(std::uint32_t to, std::uint32_t value, std::uint32_t barrier);
void bulk_copy_to_cluster(std::uint32_t to, std::uint32_t from, std::uint32_t barrier, int bytes);

/// `map` is a CUtensorMap, `at` the first element of the box.
void bulk_tensor_load(std::uint32_t to, const void* map, std::uint32_t barrier, const int (&at)[4]);
void bulk_load(std::uint32_t to, const void* from, std::uint32_t barrier, int bytes);
void bulk_tensor_store(const void* map, std::uint32_t from, const int (&at)[4]);
void bulk_store(void* to, std::uint32_t from, int bytes);
void bulk_add_f32(void* to, std::uint32_t from, int bytes);
void bulk_commit_group();
void bulk_wait_group_read();
void bulk_wait_group();

/// d (+)= a b: [64 x 16] [16 x columns]. `registers` are a's, or null: then `a` describes it.
struct WarpgroupProduct {
  Operand operand;
  int columns;
  bool adds, a_transposed, b_transposed;
  float* d;
  const std::uint32_t* registers;
  std::uint64_t a, b;
};
void wgmma(const WarpgroupProduct& product);
void wgmma_fence();
void wgmma_commit_group();
void wgmma_wait_group(int pending);

/// setmaxnreg: waits until the block has as many registers to give.
void set_most_registers(int count, bool increase);

}  // namespace strobe::simulator
