// The library's own thread pool. A caller posts a job and helps with it; workers spin for some microseconds after a job
// and then sleep. Threads that come late find the job closed, so a caller never waits for one to wake up.
#include "strobe/executor.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace strobe {
namespace {

/// Below this a job runs on the caller: waking threads would cost more than it saves.
constexpr double kShortestSharedJob = 50e3;  // ns

/// Rounds of the spin loop before a thread sleeps, some 10 ns each.
constexpr int kSpinRounds = 1000;

/// True on threads that are inside a parallel_for: a nested one runs inline.
thread_local bool inside_job = false;

/// Counts forks. Threads do not survive one, so a pool made before it runs its jobs inline.
std::atomic<int> forks{0};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

class ThreadPool final : public Executor {
 public:
  explicit ThreadPool(int threads) : threads_(threads) {
    workers_.reserve(std::size_t(threads - 1));
    for (int worker = 1; worker < threads; ++worker) {
      workers_.emplace_back([this, worker] { serve(worker); });
    }
  }

  ~ThreadPool() override {
    stopping_.store(true, std::memory_order_relaxed);
    state_.fetch_add(kEpoch, std::memory_order_release);
    state_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int concurrency() const override { return threads_; }

  void parallel_for(std::int64_t chunks, double nanoseconds_per_chunk, Body body, void* context) override {
    const bool alone = threads_ == 1 || chunks <= 1 || inside_job || forks.load() != forks_at_birth_ ||
                       double(chunks) * nanoseconds_per_chunk < kShortestSharedJob;
    if (alone) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk, 0);
      return;
    }
    const std::lock_guard one_job_at_a_time(posting_);
    inside_job = true;
    job_ = {body, context, chunks};
    next_.store(0, std::memory_order_relaxed);
    state_.fetch_add(kEpoch | kOpen, std::memory_order_release);
    state_.notify_all();
    claim_chunks(0);
    close_and_wait();
    inside_job = false;
  }

 private:
  // state_ = epoch (16 bits) | workers inside the job (15 bits) | open (1 bit). An epoch that wraps around can only
  // make a sleeper miss a job, which the others then do.
  static constexpr std::uint32_t kOpen = 1, kInside = 2, kEpoch = 1u << 16, kInsideMask = kEpoch - kInside;

  struct Job {
    Body body = nullptr;
    void* context = nullptr;
    std::int64_t chunks = 0;
  };

  void claim_chunks(int worker) {
    const Job job = job_;
    for (;;) {
      const std::int64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= job.chunks) return;
      job.body(job.context, chunk, worker);
    }
  }

  void close_and_wait() {
    std::uint32_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    for (int round = 0; (state & kInsideMask) != 0; ++round) {
      if (round < kSpinRounds) {
        relax();
      } else {
        state_.wait(state, std::memory_order_acquire);
      }
      state = state_.load(std::memory_order_acquire);
    }
  }

  void serve(int worker) {
    inside_job = true;
    std::uint32_t seen = 0;
    for (;;) {
      std::uint32_t state = wait_for_news(seen);
      if (stopping_.load(std::memory_order_relaxed)) return;
      seen = state & ~(kEpoch - 1);
      while ((state & kOpen) != 0 && (state & ~(kEpoch - 1)) == seen) {
        if (!state_.compare_exchange_weak(state, state + kInside, std::memory_order_acquire)) continue;
        claim_chunks(worker);
        const std::uint32_t left = state_.fetch_sub(kInside, std::memory_order_acq_rel) - kInside;
        if ((left & (kInsideMask | kOpen)) == 0) state_.notify_all();
        break;
      }
    }
  }

  /// Returns the state once its epoch differs from `seen`.
  std::uint32_t wait_for_news(std::uint32_t seen) {
    for (int round = 0;; ++round) {
      const std::uint32_t state = state_.load(std::memory_order_acquire);
      if ((state & ~(kEpoch - 1)) != seen) return state;
      if (round < kSpinRounds) {
        relax();
      } else {
        state_.wait(state, std::memory_order_acquire);
      }
    }
  }

  const int threads_;
  const int forks_at_birth_ = forks.load();
  std::mutex posting_;
  Job job_;
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<std::uint32_t> state_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

/// CPUs that the cgroup's quota is worth, rounded up; 0 when there is no quota.
int cgroup_cpus() {
  std::string quota;
  long period = 0;
  if (std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period) {
    return quota == "max" || period <= 0 ? 0 : int((std::atol(quota.c_str()) + period - 1) / period);
  }
  long microseconds = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> microseconds;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  return microseconds > 0 && period > 0 ? int((microseconds + period - 1) / period) : 0;
}

int default_threads() {
  if (const char* wanted = std::getenv("STROBE_NUM_THREADS"); wanted != nullptr && *wanted != '\0') {
    char* end = nullptr;
    const long threads = std::strtol(wanted, &end, 10);
    if (*end != '\0' || threads < 1 || threads > 4096) {
      throw Error(ErrorCode::kInvalidArgument, "environment variable STROBE_NUM_THREADS", wanted,
                  "a number of threads from 1 to 4096");
    }
    return int(threads);
  }
  int threads = int(std::thread::hardware_concurrency());
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) threads = CPU_COUNT(&allowed);
  if (const int quota = cgroup_cpus(); quota > 0) threads = std::min(threads, quota);
  return std::max(threads, 1);
}

}  // namespace

Executor::~Executor() = default;

std::unique_ptr<Executor> make_thread_pool(int threads) {
  if (threads < 1 || threads > 4096) {
    throw Error(ErrorCode::kInvalidArgument, "threads", std::to_string(threads), "from 1 to 4096");
  }
  static const int registered = pthread_atfork(nullptr, nullptr, [] {
    forks.fetch_add(1);
    inside_job = false;
  });
  (void)registered;
  return std::make_unique<ThreadPool>(threads);
}

Executor& default_executor() {
  // Never destroyed: joining threads while a process exits can hang.
  static Executor* const executor = make_thread_pool(default_threads()).release();
  return *executor;
}

}  // namespace strobe
