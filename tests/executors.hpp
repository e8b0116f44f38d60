// Executors that find what the library's own pool may hide: it runs short jobs on the caller and claims chunks in
// order.
#pragma once

#include <atomic>
#include <cstdint>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "cases/random.hpp"
#include "strobe/executor.hpp"

namespace strobe::cases {

/// Runs every job on the caller, but its chunks in random order as ever changing workers.
class ScrambledExecutor final : public Executor {
 public:
  explicit ScrambledExecutor(int workers, std::uint64_t seed = 1) : workers_(workers), random_(seed) {}

  int concurrency() const override { return workers_; }
  void parallel_for(std::int64_t chunks, double, Body body, void* context) override {
    std::vector<std::int64_t> order(static_cast<std::size_t>(chunks));
    std::iota(order.begin(), order.end(), 0);
    for (std::int64_t n = chunks - 1; n > 0; --n) std::swap(order[n], order[random_.integer(0, n)]);
    for (std::int64_t chunk : order) body(context, chunk, int(random_.integer(0, workers_ - 1)));
  }

 private:
  int workers_;
  Random random_;
};

/// Shares every job, however short, between threads of its own.
class SpawningExecutor final : public Executor {
 public:
  explicit SpawningExecutor(int threads) : threads_(threads) {}

  int concurrency() const override { return threads_; }
  void parallel_for(std::int64_t chunks, double, Body body, void* context) override {
    std::atomic<std::int64_t> next = 0;
    std::vector<std::thread> threads;
    for (int worker = 0; worker < threads_; ++worker) {
      threads.emplace_back([&, worker] {
        for (std::int64_t chunk = next++; chunk < chunks; chunk = next++) body(context, chunk, worker);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  int threads_;
};

/// What tests run kernels on unless they are about threads.
inline Executor& executor() {
  static ScrambledExecutor scrambled(3);
  return scrambled;
}

}  // namespace strobe::cases
