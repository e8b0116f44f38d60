// See pinning.hpp.
#include "bench/pinning.hpp"

#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

namespace strobe::tools {
namespace {

/// The processors of the process before any thread was pinned.
const std::vector<int>& allowed_processors() {
  static const std::vector<int> processors = [] {
    std::vector<int> found;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return found;
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
      if (CPU_ISSET(processor, &set)) found.push_back(processor);
    }
    return found;
  }();
  return processors;
}

struct Meeting {
  int expected;
  std::atomic<int> arrived{0};
};

/// Waits for all the others, so that no thread runs two chunks.
void pin_worker(void* context, std::int64_t, int worker) {
  auto& meeting = *static_cast<Meeting*>(context);
  pin_this_thread(worker);
  meeting.arrived.fetch_add(1);
  while (meeting.arrived.load() < meeting.expected) std::this_thread::yield();
}

}  // namespace

void pin_this_thread(int index) {
  const std::vector<int>& processors = allowed_processors();
  if (processors.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processors[std::size_t(index) % processors.size()], &set);
  sched_setaffinity(0, sizeof set, &set);
}

void pin_threads(Executor& executor) {
  constexpr double kLongJob = 1e9;  // ns: long enough that the pool shares it
  allowed_processors();
  Meeting meeting{.expected = executor.concurrency()};
  executor.parallel_for(meeting.expected, kLongJob, pin_worker, &meeting);
}

}  // namespace strobe::tools
