// Threads: the library's pool and callers' own executors, jobs inside jobs, calls from several threads at once. Small,
// so that the thread sanitizer can watch all of it.
#include <gtest/gtest.h>

#include <thread>

#include "cases/run.hpp"
#include "cases/verify.hpp"
#include "executors.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

void count_chunk(void* context, std::int64_t chunk, int) {
  static_cast<std::atomic<int>*>(context)[chunk].fetch_add(1, std::memory_order_relaxed);
}

TEST(ThreadPool, RunsEveryChunkOnce) {
  for (int threads : {1, 2, 3, 8}) {
    const auto pool = make_thread_pool(threads);
    EXPECT_EQ(pool->concurrency(), threads);
    for (const std::int64_t chunks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> counts(static_cast<std::size_t>(chunks));
      for (const double nanoseconds : {1.0, 1e9}) {
        for (auto& count : counts) count = 0;
        pool->parallel_for(chunks, nanoseconds, count_chunk, counts.data());
        for (auto& count : counts) EXPECT_EQ(count, 1);
      }
    }
  }
}

TEST(ThreadPool, NeverGivesAWorkerIndexToTwoChunksAtOnce) {
  struct Context {
    std::atomic<int> inside[4] = {};
    std::atomic<bool> clash = false;
  } context;
  const auto pool = make_thread_pool(4);
  for (int round = 0; round < 50; ++round) {
    pool->parallel_for(
        64, 1e9,
        [](void* raw, std::int64_t, int worker) {
          auto& [inside, clash] = *static_cast<Context*>(raw);
          if (inside[worker].fetch_add(1) != 0) clash = true;
          std::this_thread::yield();
          inside[worker].fetch_sub(1);
        },
        &context);
  }
  EXPECT_FALSE(context.clash);
}

TEST(ThreadPool, RunsAJobInsideAJob) {
  struct Context {
    Executor* pool;
    std::atomic<int> counts[16] = {};
  } context{make_thread_pool(3).release(), {}};
  const std::unique_ptr<Executor> owner(context.pool);
  context.pool->parallel_for(
      4, 1e9,
      [](void* raw, std::int64_t outer, int) {
        auto& inner = *static_cast<Context*>(raw);
        inner.pool->parallel_for(4, 1e9, count_chunk, inner.counts + outer * 4);
      },
      &context);
  for (auto& count : context.counts) EXPECT_EQ(count, 1);
}

TEST(ThreadPool, ServesCallersSideBySide) {
  const auto pool = make_thread_pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        std::atomic<int> counts[32] = {};
        pool->parallel_for(32, 1e9, count_chunk, counts);
        for (auto& count : counts) wrong += count != 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, RefusesToHaveNoThreads) { EXPECT_THROW(make_thread_pool(0), Error); }

constexpr const char* kCases[] = {
    "q=80 k=90 heads=4/2 dim=32 batch=2 causal",
    "q=1 k=4500 heads=4/2 dim=32 dtype=bfloat16",
    "q=3 k=96 page=16 batch=2 key_lengths=90,0 heads=4/2 dim=32 append=3 rotary=32 causal",
    "pass=backward q=80 k=90 heads=4/2 dim=32 batch=2 causal sink bias=hk",
    "pass=backward q=80 k=90 heads=4/1 dim=32 batch=2 bias=1 dtype=float16",
};

class Threads : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Cases, Threads, testing::ValuesIn(kCases));

TEST_P(Threads, SharingEveryJobAgreesWithTheReference) {
  SpawningExecutor spawning(3);
  for (const std::string& failure : check_case_everywhere(parse_case(GetParam()), spawning)) ADD_FAILURE() << failure;
}

void call(Instance& instance, Executor* executor) {
  if (instance.description.pass == Pass::kForward) {
    forward(instance.attention, instance.outputs, {.executor = executor});
  } else {
    backward(instance.attention, instance.upstream, instance.gradients, {.executor = executor});
  }
}

TEST_P(Threads, CallsFromSeveralThreadsAgreeWithTheReference) {
  std::vector<std::unique_ptr<Instance>> instances;
  for (int caller = 0; caller < 4; ++caller) instances.push_back(build(parse_case(GetParam())));
  std::vector<std::thread> callers;
  for (auto& instance : instances) callers.emplace_back([&] { call(*instance, nullptr); });
  for (std::thread& caller : callers) caller.join();
  for (auto& instance : instances) {
    const Verdict verdict = Judge(*instance).judge();
    EXPECT_TRUE(verdict.passed()) << verdict.failures.front();
  }
}

TEST_P(Threads, CallsInsideAJobAgreeWithTheReference) {
  struct Context {
    std::vector<std::unique_ptr<Instance>> instances;
    Executor* pool;
  } context;
  for (int n = 0; n < 4; ++n) context.instances.push_back(build(parse_case(GetParam())));
  const auto pool = make_thread_pool(2);
  context.pool = pool.get();
  pool->parallel_for(
      4, 1e9,
      [](void* raw, std::int64_t chunk, int) {
        auto& [instances, inner] = *static_cast<Context*>(raw);
        call(*instances[static_cast<std::size_t>(chunk)], inner);
      },
      &context);
  for (auto& instance : context.instances) {
    const Verdict verdict = Judge(*instance).judge();
    EXPECT_TRUE(verdict.passed()) << verdict.failures.front();
  }
}

}  // namespace
}  // namespace strobe::cases
