// Fibers are made by makecontext and switched by _setjmp and _longjmp, which call no system function. One grid runs at
// a time, a few of its blocks side by side: those with the lowest numbers that have not ended.
#include "cuda/simulator/machine.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include <sys/mman.h>

#include "cuda/simulator/block.hpp"

namespace strobe::simulator {

Index thread_index, block_index, block_size, grid_size;
char* shared_memory = nullptr;
Block* block = nullptr;
int current = 0;
std::mt19937 chance;

namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr int kIdleRounds = 1000;
constexpr int kRegisters = 64 << 10, kMostOfThread = 255, kRegisterUnit = 8;

void (*kernel_to_run)(const void*) = nullptr;
const void* kernel_params = nullptr;
bool starts_early = false;
std::jmp_buf scheduler;
bool failed = false;

std::vector<Block*> running;
Block* owner_of_static_memory = nullptr;

void leave() {
  if (_setjmp(self().state) == 0) std::longjmp(scheduler, 1);
}

void run_thread() {
  kernel_to_run(kernel_params);
  if (starts_early && !self().waited_for_grids) fail("started early, and did not wait for the kernels before it");
  block->end_thread();
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

std::vector<char*>& unused_stacks() {
  static auto& stacks = *new std::vector<char*>;
  return stacks;
}

char* take_stack() {
  if (!unused_stacks().empty()) {
    char* const stack = unused_stacks().back();
    unused_stacks().pop_back();
    return stack;
  }
  void* const memory =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  mprotect(memory, 4096, PROT_NONE);  // catches a stack that grows too far
  return static_cast<char*>(memory);
}

void prepare(Fiber& fiber, int registers) {
  fiber.registers = registers;
  fiber.stack = take_stack();
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack;
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, run_thread, 0);
}

void enter(Block& next) {
  block = &next;
  block_index = next.index;
  shared_memory = next.memory;
}

enum class Progress { kNone, kSpun, kSome };

/// Runs the lanes of a warp until all wait or are done.
Progress run_warp(int warp) {
  Progress progress = Progress::kNone;
  for (bool again = true; again;) {
    again = false;
    for (int lane = 0; lane < kLanes && !failed; ++lane) {
      const int thread = warp * kLanes + lane;
      if (std::size_t(thread) >= block->fibers.size() || !block->fibers[std::size_t(thread)].ready) continue;
      resume(thread);
      progress = std::max(progress, self().spins ? Progress::kSpun : Progress::kSome);
      again |= !self().spins;  // one that spins lets other warps run first
    }
  }
  return progress;
}

/// Runs all warps of a block once.
Progress run_warps(Block& one) {
  enter(one);
  std::shuffle(one.order.begin(), one.order.end(), chance);
  Progress progress = Progress::kNone;
  for (const int warp : one.order) {
    progress = std::max(progress, run_warp(warp));
    if (!failed && one.copy_engine.work()) progress = Progress::kSome;
  }
  return progress;
}

/// Runs blocks once: all, or those that do not let others go first.
Progress run_blocks(bool all) {
  Progress progress = Progress::kNone;
  std::shuffle(running.begin(), running.end(), chance);
  for (Block* const one : running) {
    const bool runs = all || draw(one->laziness) == 0;
    progress = std::max(progress, runs ? run_warps(*one) : Progress::kSpun);
  }
  for (Block* const one : running) {
    if (progress == Progress::kSome || failed) break;
    enter(*one);
    if (one->copy_engine.work_at_once()) progress = Progress::kSome;
  }
  return progress;
}

Block* start_block(Index place, int rank, unsigned threads, std::size_t shared_bytes) {
  static auto& blocks = *new std::vector<std::unique_ptr<Block>>;
  auto unused = std::find_if(blocks.begin(), blocks.end(), [](const auto& one) { return one->live == 0; });
  if (unused == blocks.end()) unused = blocks.insert(blocks.end(), std::make_unique<Block>());
  Block& one = **unused;
  one.fibers = std::vector<Fiber>(threads);
  const int registers = kRegisters / int(threads) / kRegisterUnit * kRegisterUnit;
  for (Fiber& fiber : one.fibers) prepare(fiber, std::min(registers, kMostOfThread));
  one.start(place, rank, threads, shared_bytes);
  running.push_back(&one);
  return &one;
}

/// The block has come to its end, or is given up.
void end_block(Block& one) {
  for (const Fiber& fiber : one.fibers) unused_stacks().push_back(fiber.stack);
  one.fibers.clear();
  one.live = 0;
  if (owner_of_static_memory == &one) owner_of_static_memory = nullptr;
}

/// Blocks whose threads have all ended make room for others.
void end_blocks() {
  for (Block* const one : running) {
    if (one->live > 0) continue;
    enter(*one);
    one->copy_engine.end_block();
    end_block(*one);
  }
  running.erase(std::remove_if(running.begin(), running.end(), [](const Block* one) { return one->live == 0; }),
                running.end());
}

void report(const Block& one, const char* what) {
  std::fprintf(stderr, "simulated GPU: block (%u, %u, %u) %s:", one.index.x, one.index.y, one.index.z, what);
  for (std::size_t thread = 0; thread < one.fibers.size(); thread += kLanes) {
    // Of a warp, the first thread that has not returned.
    std::size_t first = thread;
    const std::size_t end = std::min(thread + kLanes, one.fibers.size());
    while (first + 1 < end && one.fibers[first].done) ++first;
    const Fiber& fiber = one.fibers[first];
    if (fiber.done) continue;
    std::fprintf(stderr, " thread %zu waits for ", first);
    if (fiber.spins) {
      std::fprintf(stderr, "other blocks");
    } else {
      std::fprintf(stderr, fiber.waits_for, fiber.waits_for_number);
    }
    std::fprintf(stderr, ";");
  }
  std::fprintf(stderr, "%s\n", one.copy_engine.describe_barriers().c_str());
}

}  // namespace

void wait_for(const char* what, std::uint32_t number) {
  self().ready = false;
  self().waits_for = what;
  self().waits_for_number = number;
  leave();
}

void wake(int thread) { block->fibers[std::size_t(thread)].ready = true; }

void wake_all(std::vector<int>& threads) {
  for (const int thread : threads) wake(thread);
  threads.clear();
}

void spin() {
  self().spins = true;
  leave();
  self().spins = false;
}

void wait_for_grids() { self().waited_for_grids = true; }

void own_static_memory() {
  while (owner_of_static_memory != nullptr && owner_of_static_memory != block) spin();
  owner_of_static_memory = block;
}

void fail(const char* what) {
  std::fprintf(stderr, "simulated GPU: thread %d of block (%u, %u, %u) %s\n", current, block_index.x, block_index.y,
               block_index.z, what);
  failed = true;
  self().ready = false;
  std::longjmp(scheduler, 1);
}

bool run(void (*kernel)(const void* params), const void* params, Index grid, unsigned threads, std::size_t shared_bytes,
         Order order) {
  static std::mutex& mutex = *new std::mutex;
  const std::lock_guard lock(mutex);
  chance.seed(order.seed);
  kernel_to_run = kernel;
  kernel_params = params;
  owner_of_static_memory = nullptr;
  failed = false;
  starts_early = order.early;
  if (order.cluster > unsigned(kMostOfCluster) || grid.x % order.cluster != 0) {
    std::fprintf(stderr, "simulated GPU: %u blocks are no whole clusters of %u\n", grid.x, order.cluster);
    return false;
  }
  Races::writers_in_use = int(order.cluster) * kWritersOfBlock;
  block_size = {threads, 1, 1};
  grid_size = grid;
  const std::size_t blocks = std::size_t(grid.x) * grid.y * grid.z;
  std::size_t started = 0;
  for (int idle = 0; !failed; end_blocks()) {
    while (started < blocks && running.size() < order.blocks) {
      std::vector<Block*> cluster;
      for (unsigned rank = 0; rank < order.cluster; ++rank, ++started) {
        const unsigned x = unsigned(started % grid.x), yz = unsigned(started / grid.x);
        cluster.push_back(start_block({x, yz % grid.y, yz / grid.y}, int(rank), threads, shared_bytes));
      }
      for (Block* const one : cluster) one->cluster = cluster;
    }
    if (running.empty()) return true;
    const Progress progress = run_blocks(idle > 0);
    idle = progress == Progress::kSome ? 0 : idle + 1;
    if (idle == 0 || (progress == Progress::kSpun && idle <= kIdleRounds)) continue;
    for (const Block* one : running) report(*one, "cannot go on");
    failed = true;
  }
  for (Block* const one : running) end_block(*one);
  running.clear();
  return false;
}

}  // namespace strobe::simulator
