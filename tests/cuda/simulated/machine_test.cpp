// The simulated GPU itself: that it finds the mistakes which it is there to find, and accuses nobody else.
#include "cuda/simulator/machine.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "cuda/simulated/one_block.hpp"

namespace strobe::simulator {
namespace {

void store(std::uint32_t address, std::uint32_t value) { std::memcpy(written(address, 4), &value, 4); }
std::uint32_t load(std::uint32_t address) {
  std::uint32_t value;
  std::memcpy(&value, read(address, 4), 4);
  return value;
}

TEST(Machine, RunsEveryThreadOfEveryBlock) {
  static int count;
  count = 0;
  EXPECT_TRUE(run([](const void*) { ++count; }, nullptr, {3, 2, 2}, 96, 0, {}));
  EXPECT_EQ(count, 3 * 2 * 2 * 96);
}

TEST(Machine, FindsThreadsThatStartEarlyAndWaitForNoGrid) {
  const auto all_wait = [](const void*) { wait_for_grids(); };
  const auto all_but_one = [](const void*) {
    if (thread() != 33) wait_for_grids();
  };
  EXPECT_TRUE(run(all_wait, nullptr, {2, 1, 1}, 64, 0, {.early = true}));
  EXPECT_FALSE(run(all_but_one, nullptr, {2, 1, 1}, 64, 0, {.early = true}));
  EXPECT_TRUE(run(all_but_one, nullptr, {2, 1, 1}, 64, 0, {}));
}

TEST(Machine, LanesMeet) {
  static std::uint32_t sums[64];
  EXPECT_TRUE(runs([](const void*) {
    struct Mine {
      std::uint32_t value, sum;
    } mine{thread(), 0};
    together(~0u, &mine, [](void* const* lanes) {
      std::uint32_t sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<Mine*>(lanes[lane])->value;
      for (int lane = 0; lane < kLanes; ++lane) static_cast<Mine*>(lanes[lane])->sum = sum;
    });
    sums[thread()] = mine.sum;
  }));
  EXPECT_EQ(sums[0], 31u * 32 / 2);
  EXPECT_EQ(sums[63], 32u * 32 + 31 * 32 / 2);
}

TEST(Machine, FindsLanesThatStayAway) {
  EXPECT_FALSE(runs([](const void*) {
    if (thread() != 5) together(~0u, nullptr, [](void* const*) {});
  }));
}

TEST(Machine, BarriersOrderWarps) {
  static std::uint32_t seen[64];
  EXPECT_TRUE(runs([](const void*) {
    store(thread() * 4, thread());
    barrier_wait(0, 0);
    seen[thread()] = load((63 - thread()) * 4);
    barrier_wait(0, 0);
    store(thread() * 4, 0);
  }));
  EXPECT_EQ(seen[0], 63u);
  EXPECT_EQ(seen[40], 23u);
}

TEST(Machine, FindsReadsBeforeABarrier) {
  EXPECT_FALSE(runs([](const void*) {
    store(thread() * 4, thread());
    load((63 - thread()) * 4);
  }));
}

TEST(Machine, FindsWritesOverWhatOthersRead) {
  EXPECT_FALSE(runs([](const void*) {
    store(thread() * 4, thread());
    barrier_wait(0, 0);
    load((63 - thread()) * 4);
    store(thread() * 4, 0);
  }));
}

TEST(Machine, OneWarpMayHandOverToAnother) {
  EXPECT_TRUE(runs([](const void*) {
    if (thread() < 32) {
      store(thread() * 4, thread());
      barrier_arrive(1, 64);
    } else {
      barrier_wait(1, 64);
      load((thread() - 32) * 4);
    }
  }));
  EXPECT_FALSE(runs([](const void*) {
    if (thread() < 32) {
      barrier_arrive(1, 64);
      store(thread() * 4, thread());  // too late
    } else {
      barrier_wait(1, 64);
      load((thread() - 32) * 4);
    }
  }));
}

TEST(Machine, FindsBarriersThatNotEveryoneReaches) {
  EXPECT_FALSE(runs([](const void*) {
    if (thread() < 32) {
      barrier_wait(1, 64);
    } else {
      barrier_wait(2, 64);
    }
  }));
}

TEST(Machine, CopiesComeWhenTheyAreWaitedFor) {
  alignas(16) static const std::uint32_t from[4] = {1, 2, 3, 4};
  static std::uint32_t before, after;
  EXPECT_TRUE(runs(
      [](const void*) {
        copy_later(0, from, true);
        commit_copies();
        copy_later(16, from, false);
        commit_copies();
        before = load(0);
        wait_for_copies(1);
        after = load(0);
      },
      nullptr, 1));
  EXPECT_EQ(before, ~0u) << "memory is full of NaN until then";
  EXPECT_EQ(after, 1u);
}

TEST(Machine, FindsCopiesIntoWhatOthersRead) {
  alignas(16) static const std::uint32_t from[4] = {};
  EXPECT_FALSE(runs([](const void*) {
    if (thread() == 0) copy_later(0, from, true);
    if (thread() == 32) load(0);
  }));
}

TEST(Machine, FindsAddressesOutsideOfTheBlocksMemory) {
  EXPECT_FALSE(runs([](const void*) { store(1024, 0); }, nullptr, 1));
  EXPECT_FALSE(runs([](const void*) { store(2, 0); }, nullptr, 1)) << "not aligned";
}

TEST(Machine, FindsThreadsThatWaitForever) {
  EXPECT_FALSE(runs([](const void*) {
    for (;;) spin();
  }));
}

}  // namespace
}  // namespace strobe::simulator
