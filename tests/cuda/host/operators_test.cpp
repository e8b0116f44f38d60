// The operators beside attention, and what happens before attention, over the fake driver: which kernel they launch on
// how many blocks, that empty problems launch none, and that a call allocates nothing and costs the host little.
#include <chrono>
#include <cstdio>

#include "allocations.hpp"
#include "cases/instance.hpp"
#include "cuda/host/fixture.hpp"
#include "cuda/sm80/append/launch.hpp"
#include "cuda/sm80/merge/launch.hpp"
#include "sanitized.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cuda {
namespace {

using testing::fake;
constexpr std::int64_t kThousand = 1000;

class Operators : public testing::Engine {
 protected:
  Operators() { fake().record = true; }

  static Execution execution() { return {.device = {.kind = DeviceKind::kCuda, .index = 0}}; }

  /// Never read or written: the fake driver runs nothing.
  static Tensor tensor(DataType type, std::initializer_list<std::int64_t> shape) {
    static const std::vector<char> memory(256);
    return Tensor::contiguous(memory.data(), type, shape);
  }
  static Tensor output(DataType type, std::initializer_list<std::int64_t> shape) {
    Tensor tensor = Tensor::contiguous(nullptr, type, shape);
    tensor.data = reinterpret_cast<void*>(std::uintptr_t(1) << 46);
    return tensor;
  }
  /// The blocks of the one launch since the last time; 0 if there was none.
  static unsigned blocks() {
    EXPECT_LE(fake().recorded.size(), 1u);
    const unsigned result = fake().recorded.empty() ? 0 : fake().recorded[0].grid[0];
    fake().recorded.clear();
    return result;
  }
  static unsigned threads() { return fake().recorded.empty() ? 0 : fake().recorded[0].threads; }

  template <typename Work>
  static void expect_light(const char* name, const Work& work) {
    fake().record = false;
    work();
    const std::size_t before = cases::allocations();
    work();
    EXPECT_EQ(cases::allocations() - before, 0u);
    constexpr int kRounds = 1000;
    double best = 1e9;
    for (int repeat = 0; repeat < 10; ++repeat) {
      const auto begin = std::chrono::steady_clock::now();
      for (int round = 0; round < kRounds; ++round) work();
      const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
      best = std::min(best, time.count() / kRounds);
    }
    std::printf("%s costs %.2f us besides the driver's own work\n", name, best);
    if (!kSanitized) {
      EXPECT_LT(best, 20.0) << "ten times what it should, since neighbours cost too";
    }
  }
};

TEST_F(Operators, SoftmaxSharesRowsAmongThreads) {
  const DataType half = DataType::kBFloat16, wide = DataType::kFloat32;
  for (const int type : {-1, int(half), int(wide)}) add_to_cache({KernelId::kSoftmaxRows, {type, 0}});
  const auto run = [&](DataType type, std::int64_t rows, std::int64_t length) {
    softmax(tensor(type, {rows, length}), output(type, {rows, length}), 1, execution());
  };
  run(half, kThousand, 64);  // 8 vectors: 4 threads a row, 32 rows a block
  EXPECT_EQ(threads(), 128u);
  EXPECT_EQ(blocks(), 32u);
  run(half, kThousand, 2048);  // 256 vectors: what a warp holds
  EXPECT_EQ(threads(), 128u);
  EXPECT_EQ(blocks(), 250u);
  run(wide, kThousand, 4096);  // 1024 vectors: a block of 256 threads
  EXPECT_EQ(threads(), 256u);
  EXPECT_EQ(blocks(), 1000u);
  run(wide, 3, 1 << 20);  // more than a block holds
  EXPECT_EQ(threads(), 512u);
  EXPECT_EQ(blocks(), 3u);
}

TEST_F(Operators, SoftmaxAcrossMemoryTakesNeighbouringRows) {
  add_to_cache({KernelId::kSoftmaxColumns, {0}});
  add_to_cache({KernelId::kSoftmaxColumns, {1}});
  const std::initializer_list<std::int64_t> shape = {3, 50, 100};
  const Tensor in = tensor(DataType::kFloat16, shape), out = output(DataType::kFloat16, shape);
  softmax(in, out, 1, execution());
  EXPECT_EQ(blocks(), 3u * 4u);  // 100 neighbours in tiles of 32
  softmax_backward(in, in, out, 0, execution());
  EXPECT_EQ(blocks(), 157u);  // 50 x 100 neighbours
}

TEST_F(Operators, MergeSharesARowAmongGroupsWhenPartsAreMany) {
  for (const std::int64_t splits : {2, 8}) add_to_cache(sm80_merge::kernel_for(DataType::kFloat32, splits));
  const auto run = [&](std::int64_t splits) {
    merge(tensor(DataType::kFloat32, {splits, 2, 5, 4, 128}), tensor(DataType::kFloat32, {splits, 2, 4, 5}),
          {.output = output(DataType::kBFloat16, {2, 5, 4, 128}), .lse = {}}, execution());
  };
  run(2);  // 40 rows, a warp each
  EXPECT_EQ(blocks(), 10u);
  run(8);  // a block each
  EXPECT_EQ(blocks(), 40u);
}

TEST_F(Operators, WithNothingToDoLaunchNothing) {
  const DataType type = DataType::kFloat32;
  softmax(tensor(type, {0, 4}), output(type, {0, 4}), 1, execution());
  softmax(tensor(type, {4, 0}), output(type, {4, 0}), 1, execution());
  merge(tensor(type, {2, 0, 4, 16}), tensor(type, {2, 4, 0}), {.output = output(type, {0, 4, 16}), .lse = {}},
        execution());
  EXPECT_EQ(blocks(), 0u);
}

TEST_F(Operators, AppendAndRotationAreOneLaunchAndQueriesMove) {
  const auto instance = cases::build(
      cases::parse_case("q=3 k=96 page=16 batch=2 key_lengths=90,0 heads=32/8 dim=128 append=3 rotary=128 causal "
                        "dtype=bfloat16"));
  const Problem& problem = instance->checked.problem;
  const Buffers& buffers = instance->checked.buffers;
  add_to_cache(sm80_append::kernel_for(problem));
  std::vector<char> workspace(sm80_append::workspace_bytes(problem));
  EXPECT_EQ(workspace.size(), 2u * 3 * 32 * 128 * 2);
  Launcher launcher({});
  const Buffers prepared = sm80_append::prepare(problem, buffers, launcher, workspace.data());
  EXPECT_EQ(prepared.query.data, workspace.data());
  EXPECT_EQ(prepared.query.row_stride, 32 * 128);
  EXPECT_EQ(prepared.key.data, buffers.key.data);
  // Tokens are six. Keys: 8 steps x 8 heads, four tokens a block; values: 16 x 8, two; queries: 8 x 32, one.
  EXPECT_EQ(blocks(), 2u + 3u + 6u);
}

TEST_F(Operators, CostTheHostLittle) {
  fake().push(fake().primary(0));  // as PyTorch and the CUDA runtime leave it
  add_to_cache({KernelId::kSoftmaxRows, {int(DataType::kBFloat16), 0}});
  add_to_cache(sm80_merge::kernel_for(DataType::kFloat32, 2));
  const Tensor in = tensor(DataType::kBFloat16, {100, 512}), out = output(DataType::kBFloat16, {100, 512});
  expect_light("softmax", [&] { softmax(in, out, 1, execution()); });
  const Tensor parts = tensor(DataType::kFloat32, {2, 2, 5, 4, 128}), lses = tensor(DataType::kFloat32, {2, 2, 4, 5}),
               merged = output(DataType::kBFloat16, {2, 5, 4, 128});
  expect_light("merge", [&] { merge(parts, lses, {.output = merged, .lse = {}}, execution()); });
  const auto instance = cases::build(
      cases::parse_case("q=1 k=96 batch=2 key_lengths=90,0 heads=8/2 dim=64 append=1 rotary=64 dtype=bfloat16"));
  const Problem& problem = instance->checked.problem;
  add_to_cache(sm80_append::kernel_for(problem));
  std::vector<char> workspace(sm80_append::workspace_bytes(problem));
  expect_light("what comes before attention", [&] {
    Launcher launcher({});
    sm80_append::prepare(problem, instance->checked.buffers, launcher, workspace.data());
  });
}

}  // namespace
}  // namespace strobe::cuda
