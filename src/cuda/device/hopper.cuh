// One function, one instruction: the PTX of Hopper (sm_90a) on top of ptx.cuh's. Tiles that the tensor copy engine
// (TMA) writes, barriers in shared memory that count its bytes, and the matrix instruction of a warpgroup. Names follow
// the PTX ISA.
#pragma once

#include "cuda/device/element.cuh"

namespace strobe::cuda::ptx {

STROBE_DEVICE void mbarrier_init(u32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Makes initialised barriers known to the copy engine.
STROBE_DEVICE void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
STROBE_DEVICE void mbarrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and lets the phase end only when `bytes` more have come.
STROBE_DEVICE void mbarrier_arrive_expect_tx(u32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

/// The thread block's number in its cluster.
STROBE_DEVICE int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// Where the thread block of that rank has what lies at this address in the shared memory of ours.
STROBE_DEVICE u32 cluster_address(u32 address, int rank) {
  u32 there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
/// All threads of the cluster meet.
STROBE_DEVICE void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
/// At a barrier of any thread block of the cluster. Tells it of reads that are over; stores to memory are not waited
/// for.
STROBE_DEVICE void mbarrier_arrive_cluster(u32 barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Stores four bytes in the shared memory of a thread block of the cluster, where `barrier` counts them.
STROBE_DEVICE void st_async(u32 to, u32 value, u32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(to), "r"(value),
               "r"(barrier)
               : "memory");
}

/// Whether the phase of this parity has ended; waits a while for it.
STROBE_DEVICE bool mbarrier_try_wait_parity(u32 barrier, u32 parity) {
  u32 done;
  asm volatile(
      "{\n.reg .pred ended;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 ended, [%1], %2;\n"
      "selp.b32 %0, 1, 0, ended;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

/// The same, of what other thread blocks of the cluster have stored.
STROBE_DEVICE bool mbarrier_try_wait_parity_cluster(u32 barrier, u32 parity) {
  u32 done;
  asm volatile(
      "{\n.reg .pred ended;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%1], %2;\n"
      "selp.b32 %0, 1, 0, ended;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

STROBE_DEVICE void nanosleep(u32 nanoseconds) { asm volatile("nanosleep.u32 %0;" ::"r"(nanoseconds)); }

/// Memory that nobody writes while the kernel runs.
STROBE_DEVICE u32 ld_global_nc_u32(const void* from) {
  u32 r;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(r) : "l"(from));
  return r;
}

/// The same for 16 bytes that are read once.
STROBE_DEVICE uint4 ld_global_nc_16(const void* from) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "l"(from));
  return r;
}

/// What threads wrote to shared memory is seen by the copy engine and by wgmma.
STROBE_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Second-level cache policies, as createpolicy makes them.
constexpr u64 kEvictFirst = 0x12F0000000000000ull, kEvictLast = 0x14F0000000000000ull;

/// Brings the description of a tensor near.
STROBE_DEVICE void prefetch_tensormap(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<u64>(&map)) : "memory");
}
/// Brings a box of a [dims, rows, heads, batches] tensor to shared memory; its bytes are counted by `barrier`. What
/// lies outside of the tensor becomes zero.
STROBE_DEVICE void cp_async_bulk_tensor_load(u32 to, const TensorMap& map, u32 barrier, int dim, int row, int head,
                                             int batch, u64 policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(reinterpret_cast<u64>(&map)), "r"(barrier), "r"(dim), "r"(row), "r"(head), "r"(batch), "l"(policy)
      : "memory");
}
/// Copies `bytes`, a multiple of 16, to the shared memory of a thread block of the cluster, whose barrier counts them.
STROBE_DEVICE void cp_async_bulk_copy_to_cluster(u32 to, u32 from, u32 barrier, int bytes) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "r"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
/// Brings `bytes`, a multiple of 16, that lie together in memory; their bytes are counted by `barrier`.
STROBE_DEVICE void cp_async_bulk_load(u32 to, const void* from, u32 barrier, int bytes) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
/// The way back; what lies outside of the tensor is not written.
STROBE_DEVICE void cp_async_bulk_tensor_store(const TensorMap& map, u32 from, int dim, int row, int head, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
                   reinterpret_cast<u64>(&map)),
               "r"(from), "r"(dim), "r"(row), "r"(head), "r"(batch)
               : "memory");
}
/// Stores `bytes`, a multiple of 16, that lie together; and the same as additions of float32 to what is there.
STROBE_DEVICE void cp_async_bulk_store(void* to, u32 from, int bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes)
               : "memory");
}
STROBE_DEVICE void cp_reduce_async_bulk_add_f32(float* to, u32 from, int bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from),
               "r"(bytes)
               : "memory");
}
STROBE_DEVICE void cp_async_bulk_commit_group() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until the stores of this thread have read their shared memory.
STROBE_DEVICE void cp_async_bulk_wait_group_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/// Until they are done.
STROBE_DEVICE void cp_async_bulk_wait_group() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/// Until the kernels before this one have ended and what they wrote is there to be read, where this one was launched to
/// start early (Start::kEarly).
STROBE_DEVICE void griddepcontrol_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/// Registers a thread of this warpgroup may use from here on.
template <int kRegisters>
STROBE_DEVICE void setmaxnreg_inc() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
STROBE_DEVICE void setmaxnreg_dec() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

STROBE_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
STROBE_DEVICE void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Until at most `kPending` groups of this warpgroup are under way.
template <int kPending>
STROBE_DEVICE void wgmma_wait_group() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// No instruction: to the compiler a new value, so that nothing that uses it moves across.
STROBE_DEVICE void renew(float& value) { asm volatile("" : "+f"(value)::"memory"); }

/// wgmma.m64nNk16: d (+)= a b with float32 sums, where thread t of the warpgroup holds d[j][e], row 16 (t / 32) + t %
/// 32 / 4 + 8 (e / 2), column 8 j + 2 (t % 4) + e % 2. `b` is a descriptor of a tile; kTransposed: its rows lie
/// along N. `a` is a descriptor, kLeftTransposed if its rows lie along M, or four registers as mma.m16n8k16 has them.
template <class Element, int kN>
struct Wgmma;

#define STROBE_W4(d, j) "=f"(d[j][0]), "=f"(d[j][1]), "=f"(d[j][2]), "=f"(d[j][3])
#define STROBE_W16(d, j) STROBE_W4(d, j), STROBE_W4(d, j + 1), STROBE_W4(d, j + 2), STROBE_W4(d, j + 3)
#define STROBE_W32(d, j) STROBE_W16(d, j), STROBE_W16(d, j + 4)
#define STROBE_U4(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define STROBE_U16(d, j) STROBE_U4(d, j), STROBE_U4(d, j + 1), STROBE_U4(d, j + 2), STROBE_U4(d, j + 3)
#define STROBE_U32(d, j) STROBE_U16(d, j), STROBE_U16(d, j + 4)
#define STROBE_P16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define STROBE_P32                                                                                                     \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30," \
  "%31"
#define STROBE_P64                                                                                                 \
  STROBE_P32                                                                                                       \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%" \
  "59,%60,%61,%62,%63"

// `start` is 0 for d = a b, 1 for d += a b; P0 to P5 are the numbers of the operands behind the sums.
#define STROBE_WGMMA_FORM(name, type, n, start, sums, outputs, P0, P1, P2, P3, P4, P5)                             \
  template <int kTransposed, int kLeftTransposed = 0>                                                              \
  static STROBE_DEVICE void name(float(&d)[n / 8][4], u64 a, u64 b) {                                              \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " #start ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n       \
                 "k16.f32." type " {" sums "}, %" P0 ", %" P1 ", add, 1, 1, %" P3 ", %" P2 ";\n}"                  \
                 : outputs                                                                                         \
                 : "l"(a), "l"(b), "n"(kTransposed), "n"(kLeftTransposed));                                        \
  }                                                                                                                \
  template <int kTransposed>                                                                                       \
  static STROBE_DEVICE void name(float(&d)[n / 8][4], const u32(&a)[4], u64 b) {                                   \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " #start ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n       \
                 "k16.f32." type " {" sums "}, {%" P0 ",%" P1 ",%" P2 ",%" P3 "}, %" P4 ", add, 1, 1, %" P5 ";\n}" \
                 : outputs                                                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kTransposed));                          \
  }
#define STROBE_WGMMA(Type, type, n, sums, writes, updates, ...)                   \
  template <>                                                                     \
  struct Wgmma<Type, n> {                                                         \
    STROBE_WGMMA_FORM(set, type, n, 0, sums, STROBE_OUTPUTS writes, __VA_ARGS__)  \
    STROBE_WGMMA_FORM(add, type, n, 1, sums, STROBE_OUTPUTS updates, __VA_ARGS__) \
  };
#define STROBE_OUTPUTS(...) __VA_ARGS__
#define STROBE_WGMMA_SHAPES(Type, type)                                                                                \
  STROBE_WGMMA(Type, type, 32, STROBE_P16, (STROBE_W16(d, 0)), (STROBE_U16(d, 0)), "16", "17", "18", "19", "20", "21") \
  STROBE_WGMMA(Type, type, 64, STROBE_P32, (STROBE_W32(d, 0)), (STROBE_U32(d, 0)), "32", "33", "34", "35", "36", "37") \
  STROBE_WGMMA(Type, type, 128, STROBE_P64, (STROBE_W32(d, 0), STROBE_W32(d, 8)),                                      \
               (STROBE_U32(d, 0), STROBE_U32(d, 8)), "64", "65", "66", "67", "68", "69")

STROBE_WGMMA_SHAPES(Float16, "f16.f16")
STROBE_WGMMA_SHAPES(BFloat16, "bf16.bf16")

}  // namespace strobe::cuda::ptx
