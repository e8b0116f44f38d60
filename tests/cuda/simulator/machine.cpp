// Fibers are made by makecontext and switched by _setjmp and _longjmp, which call no system function. One grid runs at
// a time.
#include "cuda/simulator/machine.hpp"

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#include "cuda/simulator/races.hpp"

namespace strobe::simulator {

Index thread_index, block_index, block_size, grid_size;
alignas(128) char shared_memory[kMostShared];

namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr int kBarriers = 16, kSpins = 1000;

struct Copy {
  std::uint32_t to;
  const void* from;
  bool wanted;
};

struct Fiber {
  std::jmp_buf state;
  ucontext_t start;
  char* stack = nullptr;
  bool started = false, ready = true, done = false, spins = false;
  const char* waits_for = "";
  int spin_count = 0;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

/// Lanes that wait for each other, by the lowest lane of their mask.
struct Meeting {
  std::uint32_t mask = 0, here = 0;
  void* brought[kLanes] = {};
};

struct Barrier {
  int here = 0;
  bool some = false, answer = false;
  Clock clock{};
  std::vector<int> waiting;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<std::array<Meeting, kLanes>> meetings;
  Barrier barriers[kBarriers];
  Races races;
  std::size_t shared_bytes = 0;
  int live = 0;
  void (*kernel)(const void*) = nullptr;
  const void* params = nullptr;
  std::jmp_buf scheduler;
  bool failed = false;
};

Block block;
int current = 0;

Fiber& self() { return block.fibers[std::size_t(current)]; }

void leave() {
  if (_setjmp(self().state) == 0) std::longjmp(block.scheduler, 1);
}

void wait_for(const char* what) {
  self().ready = false;
  self().spin_count = 0;
  self().waits_for = what;
  leave();
}

void open_barrier(Barrier& barrier) {
  barrier.answer = barrier.some;
  barrier.some = false;
  barrier.here = 0;
  for (const int thread : barrier.waiting) {
    block.fibers[std::size_t(thread)].ready = true;
    block.races.leave(thread / kLanes, barrier.clock);
  }
  barrier.waiting.clear();
  barrier.clock = {};
}

/// Counts the thread that runs, which `waits` or does not; true if it was the last one.
bool count(Barrier& barrier, int threads, bool waits) {
  block.races.arrive(current / kLanes, barrier.clock);
  const int wanted = threads > 0 ? (threads + kLanes - 1) / kLanes * kLanes : block.live;
  if (++barrier.here < wanted) return false;
  if (waits) block.races.leave(current / kLanes, barrier.clock);
  open_barrier(barrier);
  return true;
}

void run_thread() {
  block.kernel(block.params);
  self().done = true;
  self().ready = false;
  --block.live;
  Barrier& whole = block.barriers[0];
  if (!whole.waiting.empty() && whole.here >= block.live) open_barrier(whole);
  std::longjmp(block.scheduler, 1);
}

void resume(int thread) {
  current = thread;
  thread_index = {unsigned(thread), 0, 0};
  Fiber& fiber = self();
  if (_setjmp(block.scheduler) != 0) return;
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

/// Runs the lanes of a warp until all wait or are done. Whether any of them did something.
bool run_warp(int warp) {
  bool some = false;
  for (bool again = true; again;) {
    again = false;
    for (int lane = 0; lane < kLanes && !block.failed; ++lane) {
      const int thread = warp * kLanes + lane;
      if (std::size_t(thread) >= block.fibers.size() || !block.fibers[std::size_t(thread)].ready) continue;
      resume(thread);
      some = true;
      again |= !self().spins;  // one that spins lets other warps run first
    }
  }
  return some;
}

/// Where an address lies. Ends the block with an error if [address, address + bytes) is outside of its shared memory,
/// or not aligned to its size.
char* shared(std::uint32_t address, std::size_t bytes) {
  if (address + bytes > block.shared_bytes) fail("leaves the shared memory of its block");
  if (address % bytes != 0) fail("takes shared memory at an address that is not aligned");
  return shared_memory + address;
}

void report_deadlock() {
  std::fprintf(stderr, "simulated GPU: block (%u, %u, %u) cannot go on:", block_index.x, block_index.y, block_index.z);
  for (std::size_t thread = 0; thread < block.fibers.size(); thread += kLanes) {
    const Fiber& fiber = block.fibers[thread];
    std::fprintf(stderr, " thread %zu %s%s;", thread, fiber.done ? "is done" : "waits for ",
                 fiber.done ? "" : fiber.waits_for);
  }
  std::fprintf(stderr, "\n");
  block.failed = true;
}

void run_block(unsigned threads, std::mt19937& random) {
  std::memset(shared_memory, 0xff, sizeof shared_memory);
  block.fibers.resize(threads);
  block.meetings.assign((threads + kLanes - 1) / kLanes, {});
  for (Barrier& barrier : block.barriers) barrier = {};
  block.races.start(int(block.meetings.size()), block.shared_bytes);
  for (Fiber& fiber : block.fibers) prepare(fiber);
  block.live = int(threads);
  std::vector<int> order(block.meetings.size());
  for (std::size_t n = 0; n < order.size(); ++n) order[n] = int(n);
  while (block.live > 0 && !block.failed) {
    std::shuffle(order.begin(), order.end(), random);
    bool some = false;
    for (const int warp : order) some |= run_warp(warp);
    if (!some && block.live > 0 && !block.failed) report_deadlock();
  }
}

}  // namespace

void together(std::uint32_t mask, void* mine, void (*act)(void* const* lanes)) {
  const int lane = current % kLanes;
  if ((mask >> lane & 1) == 0) fail("takes part in a step of its warp whose mask leaves it out");
  Meeting& meeting = block.meetings[std::size_t(current / kLanes)][std::size_t(__builtin_ctz(mask))];
  if (meeting.here != 0 && meeting.mask != mask) fail("meets lanes of its warp that name another mask");
  if (meeting.here == 0) std::fill(std::begin(meeting.brought), std::end(meeting.brought), nullptr);
  meeting.mask = mask;
  meeting.here |= 1u << lane;
  meeting.brought[lane] = mine;
  if (meeting.here != mask) return wait_for("the other lanes of its warp");
  act(meeting.brought);
  meeting.here = 0;
  for (int other = 0; other < kLanes; ++other) {
    if ((mask >> other & 1) != 0) block.fibers[std::size_t(current / kLanes * kLanes + other)].ready = true;
  }
}

void barrier_wait(int barrier, int threads) {
  Barrier& b = block.barriers[barrier];
  if (count(b, threads, true)) return;
  b.waiting.push_back(current);
  wait_for("a barrier");
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
  if (++self().spin_count > kSpins) fail("waits for another block that has not run");
  self().spins = true;
  leave();
  self().spins = false;
}

const char* read(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes);
  if (!block.races.read(current / kLanes, address, bytes)) fail("reads what another warp may still write");
  return place;
}

char* written(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes);
  if (!block.races.write(current / kLanes, address, bytes)) fail("writes what another warp may still read or write");
  return place;
}

std::uint32_t shared_address(const void* pointer) {
  const std::ptrdiff_t offset = static_cast<const char*>(pointer) - shared_memory;
  if (offset < 0 || std::size_t(offset) > kMostShared) fail("takes other memory for dynamic shared memory");
  return std::uint32_t(offset);
}

void fail(const char* what) {
  std::fprintf(stderr, "simulated GPU: thread %d of block (%u, %u, %u) %s\n", current, block_index.x, block_index.y,
               block_index.z, what);
  block.failed = true;
  self().ready = false;
  std::longjmp(block.scheduler, 1);
}

bool run(void (*kernel)(const void* params), const void* params, Index grid, unsigned threads, std::size_t shared_bytes,
         unsigned seed) {
  static std::mutex& mutex = *new std::mutex;
  const std::lock_guard lock(mutex);
  std::mt19937 random(seed);
  block.kernel = kernel;
  block.params = params;
  block.shared_bytes = shared_bytes;
  block.failed = false;
  block_size = {threads, 1, 1};
  grid_size = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x && !block.failed; ++x) {
        block_index = {x, y, z};
        run_block(threads, random);
      }
    }
  }
  return !block.failed;
}

}  // namespace strobe::simulator
