// What the threads of a block do together: steps of a warp, named barriers, cp.async, shared memory.
#include "cuda/simulator/block.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

namespace strobe::simulator {
namespace {

void open_barrier(Barrier& barrier) {
  barrier.answer = barrier.some;
  barrier.some = false;
  barrier.here = 0;
  for (const int thread : barrier.waiting) block->races.leave(thread / kLanes, barrier.knowledge);
  wake_all(barrier.waiting);
  barrier.knowledge = {};
}

/// Counts the thread that runs, which `waits` or does not; true if it was the last one.
bool count(Barrier& barrier, int threads, bool waits) {
  block->races.arrive(current_warp(), barrier.knowledge);
  const int wanted = threads > 0 ? (threads + kLanes - 1) / kLanes * kLanes : block->live;
  if (++barrier.here < wanted) return false;
  if (waits) block->races.leave(current_warp(), barrier.knowledge);
  open_barrier(barrier);
  return true;
}

constexpr const char* kWritesTooEarly = "writes what another warp may still read or write";

}  // namespace

void Block::start(Index place, int number, unsigned threads, std::size_t bytes) {
  index = place;
  rank = number;
  shared_bytes = bytes;
  std::memset(memory, 0xff, kMostShared);
  const int warps = (int(threads) + kLanes - 1) / kLanes;
  meetings.assign(std::size_t(warps), {});
  for (Barrier& barrier : barriers) barrier = {};
  of_cluster = {};
  races.start(warps, rank, bytes);
  copy_engine.start();
  matrix_units.start(warps);
  free_registers = 0;
  waiting_for_registers.clear();
  live = int(threads);
  laziness = 1 + draw(2) * draw(8);
  order.resize(std::size_t(warps));
  std::iota(order.begin(), order.end(), 0);
}

void Block::end_thread() {
  copy_engine.end_thread();
  matrix_units.end_thread(current_warp());
  self().done = true;
  self().ready = false;
  --live;
  Barrier& whole = barriers[0];
  if (!whole.waiting.empty() && whole.here >= live) open_barrier(whole);
}

void require_free(bool free, const char* what) {
  if (!free) fail((what + (": " + block->races.last_conflict())).c_str());
}

void require_free(Races::Answer answer, const char* does) {
  if (answer == Races::Answer::kFree) return;
  const char* const what = answer == Races::Answer::kRace ? " what may still be read or written"
                                                          : " what warps wrote without fence.proxy.async";
  require_free(false, (std::string(does) + what).c_str());
}

char* shared(std::uint32_t address, std::size_t bytes, std::size_t alignment) {
  if (address + bytes > block->shared_bytes) fail("leaves the shared memory of its block");
  if (address % alignment != 0) fail("takes shared memory at an address that is not aligned");
  return shared_memory + address;
}

void together(std::uint32_t mask, void* mine, void (*act)(void* const* lanes)) {
  const int lane = current % kLanes;
  if ((mask >> lane & 1) == 0) fail("takes part in a step of its warp whose mask leaves it out");
  Meeting& meeting = block->meetings[std::size_t(current_warp())][std::size_t(__builtin_ctz(mask))];
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
  Barrier& b = block->barriers[barrier];
  if (count(b, threads, true)) return;
  b.waiting.push_back(current);
  wait_for("named barrier %u", std::uint32_t(barrier));
}

Within::Within(Block& other) {
  block = &other;
  shared_memory = other.memory;
}
Within::~Within() {
  block = before_;
  shared_memory = before_->memory;
}

int cluster_rank() { return block->rank; }

void cluster_sync() {
  Barrier& mine = block->of_cluster;
  block->races.arrive(current_warp(), mine.knowledge);
  ++mine.here;
  mine.waiting.push_back(current);
  self().ready = false;
  const auto complete = [](const Block* one) { return one->of_cluster.here == int(block_size.x); };
  if (std::all_of(block->cluster.begin(), block->cluster.end(), complete)) {
    Knowledge all;
    for (const Block* one : block->cluster) all.take(one->of_cluster.knowledge);
    for (Block* one : block->cluster) {
      const Within there(*one);
      one->of_cluster.knowledge = all;
      open_barrier(one->of_cluster);
    }
  }
  if (!self().ready) wait_for("the cluster's barrier");
}

void barrier_arrive(int barrier, int threads) { count(block->barriers[barrier], threads, false); }

bool any_of_block(bool value) {
  block->barriers[0].some |= value;
  barrier_wait(0, 0);
  return block->barriers[0].answer;
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

const char* read(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  require_free(block->races.read(current_warp(), address, bytes), "reads what another warp may still write");
  return place;
}

char* written(std::uint32_t address, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  require_free(block->races.write(current_warp(), address, bytes), kWritesTooEarly);
  return place;
}

void store(std::uint32_t address, const void* value, std::size_t bytes) {
  char* const place = shared(address, bytes, bytes);
  const bool same = std::memcmp(place, value, bytes) == 0;
  require_free(same ? block->races.write_same(current_warp(), address, bytes)
                    : block->races.write(current_warp(), address, bytes),
               kWritesTooEarly);
  std::memcpy(place, value, bytes);
}

std::uint32_t shared_address(const void* pointer) {
  const std::ptrdiff_t offset = static_cast<const char*>(pointer) - shared_memory;
  if (offset < 0 || std::size_t(offset) > kMostShared) fail("takes other memory for dynamic shared memory");
  return std::uint32_t(offset);
}

}  // namespace strobe::simulator
