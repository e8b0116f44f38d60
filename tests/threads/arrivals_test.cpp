// How decode's blocks find the last of them, run by threads: one of them, and only one, comes last, and sees what all
// others wrote, whatever memory held before. The thread sanitizer sees it when what they wrote is not handed over.
#include "cuda/sm80/decode/arrivals.cuh"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <random>
#include <thread>
#include <vector>

namespace strobe::cuda {
namespace {

constexpr int kBlocks = 6, kLaunches = 2000;

/// What a launch finds where it counts, and its tag.
enum class Before { kGarbage, kReplay, kZero, kNearlyCounted };

class Arriving : public testing::TestWithParam<Before> {};

TEST_P(Arriving, OneComesLastAndSeesAll) {
  std::mt19937_64 random(1);
  u64 word = random(), tag = random();
  int parts[kBlocks] = {}, launch = 0;
  std::atomic<int> last{0}, unseen{0};
  const auto next = [&]() noexcept {
    ++launch;
    if (GetParam() == Before::kReplay) return;
    tag = random();
    if (GetParam() == Before::kGarbage) word = random();
    if (GetParam() == Before::kZero) word = 0;
    if (GetParam() == Before::kNearlyCounted) word = tag + (launch % 2 == 0 ? u64(kBlocks) : ~u64(0));
  };
  std::barrier between(kBlocks, next);
  std::vector<std::thread> blocks;
  for (int block = 0; block < kBlocks; ++block) {
    blocks.emplace_back([&, block] {
      for (int n = 0; n < kLaunches; ++n) {
        between.arrive_and_wait();
        sm80::Arrivals arrivals(&word, tag, kBlocks);
        arrivals.look();
        parts[block] = launch;
        if (!arrivals.complete()) continue;
        ++last;
        for (const int part : parts) unseen += part != launch;
      }
    });
  }
  for (std::thread& block : blocks) block.join();
  EXPECT_EQ(last, kLaunches);
  EXPECT_EQ(unseen, 0);
}
INSTANTIATE_TEST_SUITE_P(Before, Arriving,
                         testing::Values(Before::kGarbage, Before::kReplay, Before::kZero, Before::kNearlyCounted));

}  // namespace
}  // namespace strobe::cuda
