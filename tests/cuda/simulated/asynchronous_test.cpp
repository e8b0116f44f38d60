// What the simulated GPU does in the background: the matrix unit, against plain products, and the copy engine, with the
// barriers that go with them; and that it finds what kernels do wrong with those.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "base/half.hpp"
#include "cuda/host/driver.hpp"
#include "cuda/simulated/one_block.hpp"
#include "cuda/simulator/background.hpp"
#include "cuda/simulator/machine.hpp"

namespace strobe::simulator {
namespace {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

constexpr unsigned kWarpgroup = 128;
constexpr std::size_t kSharedBytes = 64 << 10;

bool warpgroup_runs(void (*kernel)(const void* params), const void* params = nullptr, unsigned threads = kWarpgroup,
                    unsigned seed = 1) {
  return runs(kernel, params, threads, seed, kSharedBytes);
}

u32 warp() { return thread() / kLanes; }

u32 swizzled(u32 address) { return address ^ (address >> 7 & 7) << 4; }
void store_half(u32 address, u16 value) { store(address, &value, sizeof value); }
u16 load_half(u32 address) {
  u16 value;
  std::memcpy(&value, read(address, sizeof value), sizeof value);
  return value;
}

// wgmma: d = a b, where a is [64 x 16] and b [16 x columns].

constexpr int kRows = 64, kDepth = 16, kPanel = 64, kRowBytes = 128;
constexpr u32 kLeftAt = 1024, kRightAt = 16384, kPanelBytes = 2 * kDepth * kRowBytes;

enum class Left { kShared, kTransposed, kRegisters };

struct ProductCase {
  Operand operand;
  int columns;
  Left left;
  bool right_transposed, adds;
};

/// Small integers, so that sums are exact.
int left_value(int row, int k) { return (3 * row + 5 * k) % 11 - 5; }
int right_value(int k, int column) { return (7 * column + 2 * k) % 9 - 4; }
int begun_with(int row, int column) { return (row + column) % 7; }

u16 half(Operand operand, int value) {
  return operand == Operand::kFloat16 ? half_from_float(float(value)) : bfloat16_from_float(float(value));
}

/// Tiles begin at their second step of 16, as they do amid a loop. Rows along K are 128 bytes; transposed, 64 elements
/// of M or N lie in a row, and further ones in the next panel.
u32 place(u32 tile, bool transposed, int k, int other) {
  const int row = transposed ? kDepth + k : other, column = transposed ? other % kPanel : kDepth + k;
  return swizzled(tile + u32(transposed ? other / kPanel : 0) * kPanelBytes + u32(row) * kRowBytes + u32(column) * 2);
}
u64 descriptor(u32 tile, bool transposed) {
  constexpr u64 kSwizzle128 = 1ull << 62, kGroupBytes = 1024;
  const u32 start = tile + (transposed ? kDepth * kRowBytes : kDepth * 2);
  return kSwizzle128 | (kGroupBytes >> 4) << 32 | u64(kPanelBytes >> 4) << 16 | start >> 4;
}

float* results() {
  static float values[kRows * 128];
  return values;
}

void fill_tiles(const ProductCase& what) {
  for (int n = int(thread()); n < kRows * kDepth; n += int(kWarpgroup)) {
    const int row = n / kDepth, k = n % kDepth;
    store_half(place(kLeftAt, what.left == Left::kTransposed, k, row), half(what.operand, left_value(row, k)));
  }
  for (int n = int(thread()); n < what.columns * kDepth; n += int(kWarpgroup)) {
    const int column = n / kDepth, k = n % kDepth;
    store_half(place(kRightAt, what.right_transposed, k, column), half(what.operand, right_value(k, column)));
  }
}

/// The thread's place among d's, as the PTX ISA has it.
int row_of(int n) { return int(thread() / 32 * 16 + thread() % 32 / 4) + n / 2 % 2 * 8; }
int column_of(int n) { return n / 4 * 8 + int(thread()) % 4 * 2 + n % 2; }

void start(const ProductCase& what, float* d, u32 (&left)[4]) {
  for (int n = 0; n < 4; ++n) {
    const int row = row_of(n % 2 * 2), k = int(thread()) % 4 * 2 + n / 2 * 8;
    left[n] = half(what.operand, left_value(row, k)) | u32(half(what.operand, left_value(row, k + 1))) << 16;
  }
  wgmma({what.operand, what.columns, what.adds, what.left == Left::kTransposed, what.right_transposed, d,
         what.left == Left::kRegisters ? left : nullptr, descriptor(kLeftAt, what.left == Left::kTransposed),
         descriptor(kRightAt, what.right_transposed)});
}

void multiply_kernel(const void* params) {
  const auto& what = *static_cast<const ProductCase*>(params);
  fill_tiles(what);
  fence_proxy_async();
  barrier_wait(0, 0);
  float d[64];
  u32 left[4];
  for (int n = 0; n < what.columns / 2; ++n) d[n] = float(begun_with(row_of(n), column_of(n)));
  wgmma_fence();
  start(what, d, left);
  wgmma_commit_group();
  wgmma_wait_group(0);
  for (int n = 0; n < what.columns / 2; ++n) results()[row_of(n) * what.columns + column_of(n)] = d[n];
}

void expect_product(const ProductCase& what) {
  SCOPED_TRACE(testing::Message() << what.columns << " columns, left " << int(what.left) << ", right transposed "
                                  << what.right_transposed << ", adds " << what.adds);
  ASSERT_TRUE(warpgroup_runs(multiply_kernel, &what));
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < what.columns; ++column) {
      int sum = what.adds ? begun_with(row, column) : 0;
      for (int k = 0; k < kDepth; ++k) sum += left_value(row, k) * right_value(k, column);
      ASSERT_EQ(results()[row * what.columns + column], float(sum)) << row << ", " << column;
    }
  }
}

TEST(Wgmma, AgreesWithAPlainProductInEveryForm) {
  for (const Operand operand : {Operand::kFloat16, Operand::kBFloat16}) {
    for (const int columns : {32, 64, 128}) {
      for (const Left left : {Left::kShared, Left::kTransposed, Left::kRegisters}) {
        for (const bool right_transposed : {false, true}) {
          for (const bool adds : {false, true}) expect_product({operand, columns, left, right_transposed, adds});
        }
      }
    }
  }
}

constexpr ProductCase kPlain{Operand::kBFloat16, 32, Left::kShared, false, false};

/// A step of multiply_kernel that is left out, or one too many.
enum class Mistake { kNone, kProxyFence, kBarrier, kFence, kOverwrites, kNoWait, kOtherLanes, kOtherWarps };

void mistaken_kernel(const void* params) {
  const auto mistake = *static_cast<const Mistake*>(params);
  ProductCase what = kPlain;
  fill_tiles(what);
  if (mistake != Mistake::kProxyFence) fence_proxy_async();
  if (mistake != Mistake::kBarrier) barrier_wait(0, 0);
  static float d[kWarpgroup][16];
  u32 left[4];
  if (mistake != Mistake::kFence) wgmma_fence();
  if (mistake == Mistake::kOtherLanes && thread() == 3) what.adds = true;
  if (mistake == Mistake::kOtherWarps && warp() == 3) what.adds = true;
  start(what, d[thread()], left);
  wgmma_commit_group();
  if (mistake == Mistake::kOverwrites) fill_tiles({Operand::kFloat16, 32, Left::kShared, false, false});
  const bool there_before = !std::isnan(d[thread()][0]);
  if (mistake != Mistake::kNoWait) wgmma_wait_group(0);
  if (mistake != Mistake::kNone) return;
  EXPECT_FALSE(there_before) << "until it is waited for";
  EXPECT_FALSE(std::isnan(d[thread()][0]));
}

TEST(Wgmma, FindsMistakes) {
  for (const Mistake mistake : {Mistake::kProxyFence, Mistake::kBarrier, Mistake::kFence, Mistake::kOverwrites,
                                Mistake::kNoWait, Mistake::kOtherLanes, Mistake::kOtherWarps}) {
    EXPECT_FALSE(warpgroup_runs(mistaken_kernel, &mistake)) << int(mistake);
  }
  const Mistake none = Mistake::kNone;
  EXPECT_TRUE(warpgroup_runs(mistaken_kernel, &none));
}

TEST(Wgmma, WaitsForGroupsInTheirOrder) {
  EXPECT_TRUE(warpgroup_runs([](const void*) {
    fill_tiles(kPlain);
    fence_proxy_async();
    barrier_wait(0, 0);
    float first[16], second[16];
    u32 left[4];
    wgmma_fence();
    start(kPlain, first, left);
    wgmma_commit_group();
    start(kPlain, second, left);
    wgmma_commit_group();
    wgmma_wait_group(1);
    EXPECT_FALSE(std::isnan(first[0]));
    EXPECT_TRUE(std::isnan(second[0]));
    wgmma_wait_group(0);
    EXPECT_EQ(first[0], second[0]);
  }));
}

struct Tensor {
  static constexpr int kColumns = 80, kLines = 5, kHeads = 2, kBatches = 2;
  alignas(64) unsigned char map[128];
  alignas(16) u16 elements[kBatches][kLines][kHeads][kColumns];

  Tensor() {
    for (int n = 0; n < int(sizeof elements / 2); ++n) (&elements[0][0][0][0])[n] = u16(n + 1);
  }
  cuda::CuResult describe(u32 box_rows, u64 row_bytes = sizeof(u16[kHeads][kColumns]), int offset = 0,
                          unsigned box_columns = 64) {
    const unsigned long long sizes[] = {kColumns, kLines, kHeads, kBatches};
    const unsigned long long strides[] = {row_bytes, sizeof(u16[kColumns]), sizeof(u16[kLines][kHeads][kColumns])};
    const unsigned box[] = {box_columns, box_rows, 1, 1}, steps[] = {1, 1, 1, 1};
    constexpr int kFloat16 = 6, kSwizzle128 = 3, kPromote256 = 3;
    return cuda::driver().encode_tensor_map(map, kFloat16, 4, &elements[0][0][0][0] + offset, sizes, strides, box,
                                            steps, 0, kSwizzle128, kPromote256, 0);
  }
};

TEST(CopyEngine, DescribesTensorsByTheDriversRules) {
  Tensor tensor;
  EXPECT_EQ(tensor.describe(8), cuda::kCuSuccess);
  EXPECT_EQ(tensor.describe(256), cuda::kCuSuccess);
  EXPECT_EQ(tensor.describe(257), cuda::kCuInvalidValue);
  EXPECT_EQ(tensor.describe(0), cuda::kCuInvalidValue);
  EXPECT_EQ(tensor.describe(8, 328), cuda::kCuInvalidValue) << "a stride that is no multiple of 16";
  EXPECT_EQ(tensor.describe(8, 320, 1), cuda::kCuInvalidValue) << "an address that is none";
  EXPECT_EQ(tensor.describe(8, 320, 0, 72), cuda::kCuInvalidValue) << "more than the swizzle spans";
}

constexpr u32 kBarrier = 0, kBox = 1024, kBoxRows = 8;
constexpr int kBoxBytes = int(kBoxRows) * kRowBytes;

/// By thread 0; the others may use the barrier then.
void start_barrier() {
  if (thread() == 0) {
    mbarrier_init(kBarrier, 1);
    fence_mbarrier_init();
  }
  barrier_wait(0, 0);
}
void wait_for_phase(u32 parity) {
  while (!mbarrier_try_wait_parity(kBarrier, parity)) {
  }
}

TEST(CopyEngine, FillsWhatLiesOutsideOfTheTensorWithZeros) {
  static Tensor tensor;
  ASSERT_EQ(tensor.describe(kBoxRows), cuda::kCuSuccess);
  for (const unsigned seed : {1u, 2u, 3u}) {
    EXPECT_TRUE(warpgroup_runs(
        [](const void*) {
          start_barrier();
          if (thread() == 0) {
            mbarrier_arrive_expect_tx(kBarrier, 2 * kBoxBytes);
            bulk_tensor_load(kBox, tensor.map, kBarrier, {64, -2, 1, 1});
            bulk_tensor_load(kBox + kBoxBytes, tensor.map, kBarrier, {0, 0, 0, 2});
          }
          wait_for_phase(0);
          for (u32 row = 0; row < kBoxRows; ++row) {
            const int line = int(row) - 2, column = 64 + int(thread() % kPanel);
            const bool there = line >= 0 && line < Tensor::kLines && column < Tensor::kColumns;
            const u32 place = row * kRowBytes + thread() % kPanel * 2;
            EXPECT_EQ(load_half(swizzled(kBox + place)), there ? tensor.elements[1][line][1][column] : 0);
            EXPECT_EQ(load_half(swizzled(kBox + kBoxBytes + place)), 0);
          }
        },
        nullptr, kWarpgroup, seed));
  }
}

TEST(CopyEngine, StoresNothingOutsideOfTheTensor) {
  static Tensor tensor;
  const Tensor untouched = tensor;
  ASSERT_EQ(tensor.describe(kBoxRows), cuda::kCuSuccess);
  EXPECT_TRUE(warpgroup_runs([](const void*) {
    for (u32 row = 0; row < kBoxRows; ++row) {
      if (thread() < kPanel) store_half(swizzled(kBox + row * kRowBytes + thread() * 2), u16(50000 + thread()));
    }
    fence_proxy_async();
    barrier_wait(0, 0);
    if (thread() != 0) return;
    bulk_tensor_store(tensor.map, kBox, {64, 3, 0, 1});
    bulk_commit_group();
    bulk_wait_group();
  }));
  for (int batch = 0; batch < Tensor::kBatches; ++batch) {
    for (int line = 0; line < Tensor::kLines; ++line) {
      for (int column = 0; column < Tensor::kColumns; ++column) {
        const bool stored = batch == 1 && line >= 3 && column >= 64;
        EXPECT_EQ(tensor.elements[batch][line][0][column],
                  stored ? 50000 + column - 64 : untouched.elements[batch][line][0][column]);
        EXPECT_EQ(tensor.elements[batch][line][1][column], untouched.elements[batch][line][1][column]);
      }
    }
  }
}

TEST(CopyEngine, StoresAndAddsBytes) {
  alignas(16) static float sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_TRUE(warpgroup_runs(
      [](const void*) {
        const float value = 10;
        for (u32 n = 0; n < 4; ++n) store(n * 4, &value, 4);
        fence_proxy_async();
        bulk_store(sums, 0, 16);
        bulk_add_f32(sums + 4, 0, 16);
        bulk_commit_group();
        bulk_wait_group_read();
        store(0, &sums[7], 4);  // too late for either
        bulk_wait_group();
      },
      nullptr, 1));
  EXPECT_EQ(sums[0], 10);
  EXPECT_EQ(sums[4], 15);
}

TEST(CopyEngine, FindsStoresOfWhatNoFenceIsBehind) {
  alignas(16) static float to[4];
  EXPECT_FALSE(warpgroup_runs(
      [](const void*) {
        const float value = 10;
        for (u32 n = 0; n < 4; ++n) store(n * 4, &value, 4);
        bulk_store(to, 0, 16);
        bulk_commit_group();
        bulk_wait_group();
      },
      nullptr, 1));
}

TEST(CopyEngine, FindsThreadsThatEndBeforeTheirStores) {
  alignas(16) static float to[4];
  EXPECT_FALSE(warpgroup_runs(
      [](const void*) {
        bulk_store(to, 0, 16);
        bulk_commit_group();
      },
      nullptr, 1));
}

alignas(16) const float kNumbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/// Loads bytes by thread 0 and reads them by another warp.
enum class Flaw {
  kNone,
  kNoWait,
  kNoAnnouncement,
  kTooFewBytes,
  kTooManyBytes,
  kOtherBarrier,
  kReadTwice,
  kTooManyCome
};

void handing_kernel(const void* params) {
  const auto flaw = *static_cast<const Flaw*>(params);
  constexpr u32 kOther = 8;
  if (thread() == 0) {
    mbarrier_init(kBarrier, 1);
    mbarrier_init(kOther, 1);
    if (flaw != Flaw::kNoAnnouncement) fence_mbarrier_init();
  }
  barrier_wait(0, 0);
  if (thread() == 0) {
    const int bytes = flaw == Flaw::kTooFewBytes ? 0 : flaw == Flaw::kTooManyBytes ? 32 : 16;
    mbarrier_arrive_expect_tx(flaw == Flaw::kOtherBarrier ? kOther : kBarrier, bytes);
    if (flaw == Flaw::kTooManyCome) mbarrier_arrive(kBarrier);
    bulk_load(kBox, kNumbers, flaw == Flaw::kOtherBarrier ? kOther : kBarrier, 16);
    if (flaw == Flaw::kOtherBarrier) mbarrier_arrive(kBarrier);
    if (flaw == Flaw::kReadTwice) {
      wait_for_phase(0);
      mbarrier_arrive_expect_tx(kBarrier, 16);
      bulk_load(kBox, kNumbers + 4, kBarrier, 16);
    }
  }
  if (thread() == 64) {
    if (flaw != Flaw::kNoWait) wait_for_phase(0);
    float first;
    std::memcpy(&first, read(kBox, 4), 4);
    EXPECT_EQ(first, 1) << int(flaw);
  }
}

TEST(CopyEngine, HandsOverWhatItBrings) {
  const Flaw none = Flaw::kNone;
  for (const unsigned seed : {1u, 2u, 3u, 4u}) EXPECT_TRUE(warpgroup_runs(handing_kernel, &none, 96, seed));
}

TEST(CopyEngine, FindsFlawsOfBarriers) {
  for (const Flaw flaw : {Flaw::kNoWait, Flaw::kNoAnnouncement, Flaw::kTooFewBytes, Flaw::kTooManyBytes,
                          Flaw::kOtherBarrier, Flaw::kReadTwice, Flaw::kTooManyCome}) {
    EXPECT_FALSE(warpgroup_runs(handing_kernel, &flaw, 96)) << int(flaw);
  }
}

TEST(CopyEngine, ReportsBarriersThatNobodyCompletes) {
  testing::internal::CaptureStderr();
  EXPECT_FALSE(warpgroup_runs([](const void*) {
    start_barrier();
    if (thread() == 0) mbarrier_arrive_expect_tx(kBarrier, 32);
    if (thread() == 0) bulk_load(kBox, kNumbers, kBarrier, 16);
    if (warp() == 1) wait_for_phase(0);
  }));
  EXPECT_NE(testing::internal::GetCapturedStderr().find(
                "barrier 0 at byte 0: phase 0 misses 0 arrivals of 1 and 16 bytes; waited for by warps 1"),
            std::string::npos);
}

TEST(Registers, AreGivenWhenOthersHaveGivenThemBack) {
  EXPECT_TRUE(warpgroup_runs(
      [](const void*) {
        if (warp() < 4) {
          set_most_registers(200, true);  // of 128
        } else {
          set_most_registers(40, false);
        }
      },
      nullptr, 512));
  EXPECT_FALSE(warpgroup_runs([](const void*) { set_most_registers(warp() < 8 ? 200 : 64, warp() < 8); }, nullptr, 512))
      << "256 * 72 are wanted, 256 * 64 given back";
  EXPECT_FALSE(warpgroup_runs([](const void*) { set_most_registers(41, false); }));
}

/// Two blocks of a warpgroup, a cluster.
bool cluster_runs(void (*kernel)(const void* params), unsigned seed, unsigned blocks = 2) {
  return run(kernel, nullptr, {blocks, 1, 1}, kWarpgroup, kSharedBytes, {.seed = seed, .cluster = 2});
}

constexpr u32 kNumber = 16, kOther = kBox + kBoxBytes;

/// What lies at an address, in the shared memory of the other block.
u32 of_other(u32 address) { return cluster_address(address, cluster_rank() ^ 1); }

u32 load_word(u32 address) {
  u32 word;
  std::memcpy(&word, read(address, sizeof word), sizeof word);
  return word;
}

TEST(Cluster, HandsOverNumbersAndBytes) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    EXPECT_TRUE(cluster_runs(
        [](const void*) {
          start_barrier();
          const u32 mine = 100 * u32(cluster_rank()) + thread(), first = 100 * u32(cluster_rank() ^ 1);
          store(kBox + thread() * 4, &mine, 4);
          fence_proxy_async();
          cluster_sync();
          if (thread() == 0) {
            mbarrier_arrive_expect_tx(kBarrier, int(kWarpgroup) * 4 + 4);
            bulk_copy_to_cluster(of_other(kOther), kBox, of_other(kBarrier), int(kWarpgroup) * 4);
            store_async(of_other(kNumber), mine, of_other(kBarrier));
          }
          wait_for_phase(0);
          EXPECT_EQ(load_word(kOther + thread() * 4), first + thread());
          EXPECT_EQ(load_word(kNumber), first);
          cluster_sync();
        },
        seed));
  }
}

TEST(Cluster, FindsCopiesOverWhatTheOtherBlockReads) {
  const auto kernel = [](const void* told) {
    if (thread() == 0) {
      mbarrier_init(kBarrier, 1);
      mbarrier_init(kBarrier + 8, 4);
      fence_mbarrier_init();
    }
    const u32 mine = 1;
    store(kBox + thread() * 4, &mine, 4);
    fence_proxy_async();
    cluster_sync();
    if (cluster_rank() == 0) {
      if (thread() == 0) {
        if (told != nullptr) {
          while (!mbarrier_try_wait_parity(kBarrier + 8, 0)) {
          }
        }
        bulk_copy_to_cluster(of_other(kBox), kBox, of_other(kBarrier), int(kWarpgroup) * 4);
      }
    } else {
      load_word(kBox + thread() * 4);
      together(~0u, nullptr, [](void* const*) {});
      if (thread() % kLanes == 0) mbarrier_arrive_cluster(of_other(kBarrier + 8));
      if (thread() == 0) mbarrier_arrive_expect_tx(kBarrier, int(kWarpgroup) * 4);
      wait_for_phase(0);
    }
    cluster_sync();
  };
  const int told = 1;
  const Order order{.cluster = 2};
  EXPECT_TRUE(run(kernel, &told, {2, 1, 1}, kWarpgroup, kSharedBytes, order));
  EXPECT_FALSE(run(kernel, nullptr, {2, 1, 1}, kWarpgroup, kSharedBytes, order));
}

TEST(Cluster, FindsFlaws) {
  const auto nothing = [](const void*) {};
  EXPECT_FALSE(cluster_runs(nothing, 1, 3)) << "half a cluster";
  EXPECT_FALSE(cluster_runs(
      [](const void*) {
        if (cluster_rank() == 0) cluster_sync();
      },
      1))
      << "one waits";
  EXPECT_FALSE(cluster_runs([](const void*) { mbarrier_arrive_cluster(of_other(kBarrier)); }, 1)) << "no barrier";
  EXPECT_FALSE(cluster_runs(
      [](const void*) {
        start_barrier();
        cluster_sync();
        mbarrier_arrive_cluster(kBarrier);
      },
      1))
      << "an address of the block's own";
}

TEST(Blocks, MayWaitForThoseThatRunBesideThem) {
  static int turn;
  const auto wait_for_turn = [](const void*) {
    while (turn != int(block_index.x)) spin();
    --turn;
  };
  turn = 1;
  EXPECT_TRUE(run(wait_for_turn, nullptr, {2, 1, 1}, 1, 0, {.blocks = 2}));
  turn = 1;
  EXPECT_FALSE(run(wait_for_turn, nullptr, {2, 1, 1}, 1, 0, {.blocks = 1}));
  turn = 2;
  EXPECT_FALSE(run(wait_for_turn, nullptr, {2, 1, 1}, 1, 0, {.blocks = 2})) << "nobody has that turn";
}

TEST(Blocks, HaveStaticMemoryForThemselves) {
  static unsigned owner;
  EXPECT_TRUE(run(
      [](const void*) {
        own_static_memory();
        owner = block_index.x;
        for (int n = 0; n < 10; ++n) {
          spin();
          EXPECT_EQ(owner, block_index.x);
        }
      },
      nullptr, {5, 1, 1}, 1, 0, {.blocks = 3}));
}

}  // namespace
}  // namespace strobe::simulator
