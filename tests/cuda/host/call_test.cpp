// The public API over the fake driver: calls reach the device and stream that they name, plans load their kernels,
// running one loads and allocates nothing, and the workspace comes from where it should.
#include <chrono>
#include <cstdio>

#include "allocations.hpp"
#include "cases/instance.hpp"
#include "cuda/families.hpp"
#include "cuda/host/fixture.hpp"
#include "plan/plan.hpp"
#include "sanitized.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cuda {
namespace {

using testing::fake;

class Call : public testing::Engine {
 protected:
  /// A problem whose tensors stay on the host: the fake driver never looks at them.
  void describe(const std::string& line) {
    instance_ = cases::build(cases::parse_case(line));
    const auto candidates = plan::candidates(instance_->checked.problem, device(0));
    if (candidates.empty()) GTEST_SKIP() << "no CUDA kernel serves " << line;
    decision_ = candidates.front().decision;
    for (int i = 0; i < decision_.kernel_count; ++i) add_to_cache(decision_.kernels[i]);
  }
  static Execution on(int index, void* stream = nullptr) {
    return {.device = {.kind = DeviceKind::kCuda, .index = index}, .stream = stream};
  }

  std::unique_ptr<cases::Instance> instance_;
  CudaDecision decision_;
};

TEST_F(Call, APlanLoadsAndRunningLaunchesOnly) {
  describe("q=200 k=300 heads=4/2 dim=64 dtype=bfloat16 causal");
  if (IsSkipped()) return;
  const Plan plan = plan_forward(instance_->attention, instance_->outputs, on(1));
  void* stream = fake().make_stream(fake().primary(1));
  const int loads = fake().loads, launches = fake().launches, taken = fake().allocations;
  std::vector<unsigned char> memory(plan.workspace_bytes() + 256);
  Execution execution = on(1, stream);
  execution.workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 255) / 256 * 256);
  execution.workspace_bytes = plan.workspace_bytes();
  plan.run(instance_->attention, instance_->outputs, execution);
  const std::size_t before = cases::allocations();
  plan.run(instance_->attention, instance_->outputs, execution);
  EXPECT_EQ(cases::allocations() - before, 0u);
  EXPECT_EQ(fake().loads - loads, 0);
  EXPECT_EQ(fake().allocations - taken, 0);
  EXPECT_GE(fake().launches - launches, 2);
  fake().record = true;
  plan.run(instance_->attention, instance_->outputs, execution);
  ASSERT_FALSE(fake().recorded.empty());
  for (const testing::FakeLaunch& launch : fake().recorded) {
    EXPECT_EQ(launch.device, 1);
    EXPECT_EQ(launch.stream, stream);
  }
}

TEST_F(Call, AWorkspaceThatIsNotGivenComesFromTheStreamsPool) {
  describe("q=1 k=20000 heads=8/2 dim=128 dtype=bfloat16");
  if (IsSkipped()) return;
  const int taken = fake().allocations, freed = fake().frees, waits = fake().waits;
  forward(instance_->attention, instance_->outputs, on(0));
  const int needed = decision_.workspace_bytes > 0 ? 1 : 0;
  EXPECT_EQ(fake().allocations - taken, needed);
  EXPECT_EQ(fake().frees - freed, needed);
  EXPECT_EQ(fake().waits - waits, 0);
}

TEST_F(Call, ThatOnlyCountsTakesNoWorkspace) {
  describe("q=200 k=300 heads=2/1 dim=64 dtype=bfloat16 causal");
  if (IsSkipped()) return;
  ASSERT_TRUE(decision_.workspace_is_counts) << "by the Hopper forward kernel";
  forward(instance_->attention, instance_->outputs, on(0));
  const int taken = fake().allocations, freed = fake().frees;
  forward(instance_->attention, instance_->outputs, on(0));
  EXPECT_EQ(fake().allocations, taken);
  EXPECT_EQ(fake().frees, freed);
}

TEST_F(Call, OfAPlanCostsTheHostLittle) {
  describe("q=64 k=64 heads=2/1 dim=64 dtype=bfloat16 causal");
  if (IsSkipped()) return;
  fake().push(fake().primary(0));  // as PyTorch and the CUDA runtime leave it
  const Plan plan = plan_forward(instance_->attention, instance_->outputs, on(0));
  constexpr int kRounds = 2000;
  double best = 1e9;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    for (int round = 0; round < kRounds; ++round) plan.run(instance_->attention, instance_->outputs, on(0));
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count() / kRounds);
  }
  std::printf("a planned call costs %.2f us besides the driver's own work\n", best);
  if (!kSanitized) {
    EXPECT_LT(best, 40.0) << "ten times what it should, since neighbours cost too";
  }
}

TEST_F(Call, IsCheckedAsOnTheCpu) {
  describe("q=20 k=30 dim=64 dtype=bfloat16");
  if (IsSkipped()) return;
  const int launches = fake().launches;
  Attention wrong = instance_->attention;
  wrong.softcap = -1;
  EXPECT_THROW(forward(wrong, instance_->outputs, on(0)), Error);
  const Plan plan = plan_forward(instance_->attention, instance_->outputs, on(0));
  EXPECT_THROW(plan.run(instance_->attention, instance_->outputs, on(1)), Error);
  EXPECT_THROW(plan.run(instance_->attention, instance_->outputs), Error);
  EXPECT_EQ(fake().launches, launches);
}

TEST_F(Call, DescribesDevices) {
  EXPECT_EQ(cuda_device_count(), 2);
  EXPECT_NE(strobe::describe({.kind = DeviceKind::kCuda, .index = 1}).find("architecture"), std::string::npos);
  EXPECT_THROW(strobe::describe({.kind = DeviceKind::kCuda, .index = 2}), Error);
}

}  // namespace
}  // namespace strobe::cuda
