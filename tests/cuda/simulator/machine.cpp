// Fibers are made by makecontext and switched by _setjmp and _longjmp, which call no system function. One grid runs at
// a time.
#include "cuda/simulator/machine.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <mutex>

#include <sys/mman.h>

#include "cuda/simulator/block.hpp"

namespace strobe::simulator {

Index thread_index, block_index, block_size, grid_size;
alignas(1024) static char memory_of_block[kMostShared];
char* shared_memory = memory_of_block;
Block block;
int current = 0;
std::mt19937 chance;

namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr int kIdleRounds = 1000;
constexpr int kRegisters = 64 << 10, kMostOfThread = 255;

void (*kernel_to_run)(const void*) = nullptr;
const void* kernel_params = nullptr;
std::jmp_buf scheduler;
bool failed = false;

void leave() {
  if (_setjmp(self().state) == 0) std::longjmp(scheduler, 1);
}

void open_barrier(Barrier& barrier) {
  barrier.answer = barrier.some;
  barrier.some = false;
  barrier.here = 0;
  for (const int thread : barrier.waiting) block.races.leave(thread / kLanes, barrier.knowledge);
  wake_all(barrier.waiting);
  barrier.knowledge = {};
}

/// Counts the thread that runs, which `waits` or does not; true if it was the last one.
bool count(Barrier& barrier, int threads, bool waits) {
  block.races.arrive(current_warp(), barrier.knowledge);
  const int wanted = threads > 0 ? (threads + kLanes - 1) / kLanes * kLanes : block.live;
  if (++barrier.here < wanted) return false;
  if (waits) block.races.leave(current_warp(), barrier.knowledge);
  open_barrier(barrier);
  return true;
}

void run_thread() {
  kernel_to_run(kernel_params);
  block.copy_engine.end_thread();
  block.matrix_units.end_thread(current_warp());
  self().done = true;
  self().ready = false;
  --block.live;
  Barrier& whole = block.barriers[0];
  if (!whole.waiting.empty() && whole.here >= block.live) open_barrier(whole);
  std::longjmp(scheduler, 1);
}

void resume(int thread) {
  current = thread;
  thread_index = {unsigned(thread), 0, 0};
  Fiber& fiber = self();
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) std::longjmp(fiber.state, 1);
  fiber.started = true;
  setcontext(&fiber.start);
}

void prepare(Fiber& fiber) {
  char* const stack = fiber.stack;
  fiber = Fiber();
  fiber.stack = stack;
  if (stack == nullptr) {
    void* memory =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fiber.stack = static_cast<char*>(memory);
    mprotect(fiber.stack, 4096, PROT_NONE);  // catches a stack that grows too far
  }
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack;
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, run_thread, 0);
}

enum class Progress { kNone, kSpun, kSome };

/// Runs the lanes of a warp until all wait or are done.
Progress run_warp(int warp) {
  Progress progress = Progress::kNone;
  for (bool again = true; again;) {
    again = false;
    for (int lane = 0; lane < kLanes && !failed; ++lane) {
      const int thread = warp * kLanes + lane;
      if (std::size_t(thread) >= block.fibers.size() || !block.fibers[std::size_t(thread)].ready) continue;
      resume(thread);
      progress = std::max(progress, self().spins ? Progress::kSpun : Progress::kSome);
      again |= !self().spins;  // one that spins lets other warps run first
    }
  }
  return progress;
}

void report_deadlock(const char* what) {
  std::fprintf(stderr, "simulated GPU: block (%u, %u, %u) %s:", block_index.x, block_index.y, block_index.z, what);
  for (std::size_t thread = 0; thread < block.fibers.size(); thread += kLanes) {
    // Of a warp, the first thread that has not returned.
    std::size_t first = thread;
    const std::size_t end = std::min(thread + kLanes, block.fibers.size());
    while (first + 1 < end && block.fibers[first].done) ++first;
    const Fiber& fiber = block.fibers[first];
    if (fiber.done) continue;
    std::fprintf(stderr, " thread %zu waits for ", first);
    std::fprintf(stderr, fiber.spins ? "global memory" : fiber.waits_for, fiber.waits_for_number);
    std::fprintf(stderr, ";");
  }
  std::fprintf(stderr, "%s\n", block.copy_engine.describe_barriers().c_str());
  failed = true;
}

void run_block(unsigned threads) {
  std::memset(shared_memory, 0xff, kMostShared);
  block.fibers.resize(threads);
  block.meetings.assign((threads + kLanes - 1) / kLanes, {});
  const int warps = int(block.meetings.size());
  for (Barrier& barrier : block.barriers) barrier = {};
  block.races.start(warps, block.shared_bytes);
  block.copy_engine.start();
  block.matrix_units.start(warps);
  const int registers = std::min(kRegisters / int(threads) / 8 * 8, kMostOfThread);
  block.free_registers = 0;
  block.waiting_for_registers.clear();
  for (Fiber& fiber : block.fibers) {
    prepare(fiber);
    fiber.registers = registers;
  }
  block.live = int(threads);
  std::vector<int> order(block.meetings.size());
  for (std::size_t n = 0; n < order.size(); ++n) order[n] = int(n);
  for (int idle = 0; block.live > 0 && !failed;) {
    std::shuffle(order.begin(), order.end(), chance);
    Progress progress = Progress::kNone;
    for (const int warp : order) {
      progress = std::max(progress, run_warp(warp));
      if (block.copy_engine.work()) progress = Progress::kSome;
    }
    if (progress == Progress::kSome || block.live == 0 || failed) {
      idle = 0;
    } else if (block.copy_engine.work_at_once()) {
      continue;
    } else if (progress == Progress::kNone) {
      report_deadlock("cannot go on");
    } else if (++idle > kIdleRounds) {
      report_deadlock("waits for another block that has not run");
    }
  }
  if (!failed) block.copy_engine.end_block();
}

}  // namespace

void wait_for(const char* what, std::uint32_t number) {
  self().ready = false;
  self().waits_for = what;
  self().waits_for_number = number;
  leave();
}

void wake(int thread) { block.fibers[std::size_t(thread)].ready = true; }

void wake_all(std::vector<int>& threads) {
  for (const int thread : threads) wake(thread);
  threads.clear();
}

char* shared(std::uint32_t address, std::size_t bytes, std::size_t alignment) {
  if (address + bytes > block.shared_bytes) fail("leaves the shared memory of its block");
  if (address % alignment != 0) fail("takes shared memory at an address that is not aligned");
  return shared_memory + address;
}

void together(std::uint32_t mask, void* mine, void (*act)(void* const* lanes)) {
  const int lane = current % kLanes;
  if ((mask >> lane & 1) == 0) fail("takes part in a step of its warp whose mask leaves it out");
  Meeting& meeting = block.meetings[std::size_t(current_warp())][std::size_t(__builtin_ctz(mask))];
  if (meeting.here != 0 && meeting.mask != mask) fail("meets lanes of its warp that name another mask");
  if (meeting.here == 0) std::fill(std::begin(meeting.brought), std::end(meeting.brought), nullptr);
  meeting.mask = mask;
  meeting.here |= 1u << lane;
  meeting.brought[lane] = mine;
  if (meeting.here != mask) return wait_for("the other lanes of its warp");
  act(meeting.brought);
  meeting.here = 0;
  for (int other = 0; other < kLanes; ++other) {
    if ((mask >> other & 1) != 0) wake(current_warp() * kLanes + other);
  }
}

void barrier_wait(int barrier, int threads) {
  Barrier& b = block.barriers[barrier];
  if (count(b, threads, true)) return;
  b.waiting.push_back(current);
  wait_for("named barrier %u", std::uint32_t(barrier));
}

void barrier_arrive(int barrier, int threads) { count(block.barriers[barrier], threads, false); }

bool any_of_block(bool value) {
  block.barriers[0].some |= value;
  barrier_wait(0, 0);
  return block.barriers[0].answer;
}

void copy_later(std::uint32_t to, const void* from, bool wanted) {
  written(to, 16);
  if (wanted && reinterpret_cast<std::uintptr_t>(from) % 16 != 0) fail("copies from an address that is not aligned");
  self().open.push_back({to, from, wanted});
}

void commit_copies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}

void wait_for_copies(int pending) {
  for (auto& groups = self().groups; int(groups.size()) > pending; groups.pop_front()) {
    for (const Copy& copy : groups.front()) {
      written(copy.to, 16);
      if (copy.wanted) {
        std::memcpy(shared_memory + copy.to, copy.from, 16);
      } else {
        std::memset(shared_memory + copy.to, 0, 16);
      }
    }
  }
}

void spin() {
  self().spins = true;
  leave();
  self().spins = false;
}

const char* read(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  if (!block.races.read(current_warp(), address, bytes)) fail("reads what another warp may still write");
  return place;
}

char* written(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  if (!block.races.write(current_warp(), address, bytes)) fail("writes what another warp may still read or write");
  return place;
}

void store(std::uint32_t address, const void* value, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  const bool free = std::memcmp(place, value, bytes) == 0 ? block.races.write_same(current_warp(), address, bytes)
                                                          : block.races.write(current_warp(), address, bytes);
  if (!free) fail("writes what another warp may still read or write");
  std::memcpy(place, value, bytes);
}

std::uint32_t shared_address(const void* pointer) {
  const std::ptrdiff_t offset = static_cast<const char*>(pointer) - shared_memory;
  if (offset < 0 || std::size_t(offset) > kMostShared) fail("takes other memory for dynamic shared memory");
  return std::uint32_t(offset);
}

void fail(const char* what) {
  std::fprintf(stderr, "simulated GPU: thread %d of block (%u, %u, %u) %s\n", current, block_index.x, block_index.y,
               block_index.z, what);
  failed = true;
  self().ready = false;
  std::longjmp(scheduler, 1);
}

bool run(void (*kernel)(const void* params), const void* params, Index grid, unsigned threads, std::size_t shared_bytes,
         unsigned seed) {
  static std::mutex& mutex = *new std::mutex;
  const std::lock_guard lock(mutex);
  chance.seed(seed);
  kernel_to_run = kernel;
  kernel_params = params;
  block.shared_bytes = shared_bytes;
  failed = false;
  block_size = {threads, 1, 1};
  grid_size = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x && !failed; ++x) {
        block_index = {x, y, z};
        run_block(threads);
      }
    }
  }
  return !failed;
}

}  // namespace strobe::simulator
