// The copy engine: boxes and bytes to shared memory and back, and the barriers that count them.
#include "cuda/simulator/copy_engine.hpp"

#include <algorithm>
#include <cstring>
#include <sstream>

#include "cuda/simulator/block.hpp"

namespace strobe::simulator {
namespace {

constexpr std::uint32_t kBarrierBytes = 8, kChunk = 16, kRow = 128;
constexpr std::size_t kBoxAlignment = 128;

Place box_of(const void* map, const int (&at)[4]) {
  Place place{.is_box = true};
  std::memcpy(&place.tensor, map, sizeof place.tensor);
  if (place.tensor.mark != TensorDescription::kMark) fail("takes something else for a description of a tensor");
  if (place.tensor.box[0] * place.tensor.element_bytes != kRow) fail("copies a box whose rows are not 128 bytes");
  std::copy(std::begin(at), std::end(at), place.at);
  place.bytes = place.tensor.element_bytes;
  for (const unsigned size : place.tensor.box) place.bytes *= size;
  return place;
}

Place bytes_at(const void* memory, int bytes) {
  if (reinterpret_cast<std::uintptr_t>(memory) % kChunk != 0) fail("copies bytes at an address that is not aligned");
  if (bytes <= 0 || bytes % int(kChunk) != 0) fail("copies bytes that are no multiple of 16");
  return {.memory = const_cast<char*>(static_cast<const char*>(memory)), .bytes = std::size_t(bytes)};
}

/// Calls `act(part of shared memory, part of the tensor or null, bytes)` for all parts of a box.
template <typename Act>
void for_parts(const Place& place, std::uint32_t shared_address, Act act) {
  const TensorDescription& tensor = place.tensor;
  const int chunk = int(kChunk / tensor.element_bytes);  // elements
  const auto columns = static_cast<long long>(tensor.sizes[0]);
  std::uint32_t row = shared_address;
  for (int batch = 0; batch < tensor.box[3]; ++batch) {
    for (int head = 0; head < tensor.box[2]; ++head) {
      for (int line = 0; line < tensor.box[1]; ++line, row += kRow) {
        const long long at[] = {place.at[1] + line, place.at[2] + head, place.at[3] + batch};
        bool inside = true;
        long long line_at = 0;
        for (int n = 0; n < 3; ++n) {
          inside &= at[n] >= 0 && at[n] < static_cast<long long>(tensor.sizes[n + 1]);
          line_at += at[n] * static_cast<long long>(tensor.strides[n]);
        }
        char* const memory = inside ? tensor.data + line_at : nullptr;
        for (int first = 0; first < tensor.box[0]; first += chunk) {
          char* const to = shared_memory + swizzled(row + std::uint32_t(first) * tensor.element_bytes);
          const long long column = place.at[0] + first;
          if (!inside || (column >= 0 && column + chunk <= columns)) {
            act(to, inside ? memory + column * tensor.element_bytes : nullptr, std::size_t(kChunk));
            continue;
          }
          for (int n = 0; n < chunk; ++n) {
            const bool there = column + n >= 0 && column + n < columns;
            act(to + n * int(tensor.element_bytes), there ? memory + (column + n) * tensor.element_bytes : nullptr,
                std::size_t(tensor.element_bytes));
          }
        }
      }
    }
  }
}

void bring(const Place& from, std::uint32_t to) {
  if (!from.is_box) {
    std::memcpy(shared_memory + to, from.memory, from.bytes);
    return;
  }
  for_parts(from, to, [](char* shared, const char* memory, std::size_t bytes) {
    if (memory != nullptr) {
      std::memcpy(shared, memory, bytes);
    } else {
      std::memset(shared, 0, bytes);
    }
  });
}

void take(BulkStore& store) {
  if (!store.read) store.data.assign(shared_memory + store.from, shared_memory + store.from + store.to.bytes);
  store.read = true;
}

/// A thread that waits for its store to have read has shared memory for itself again.
void release(BulkStore& store) {
  if (store.released) return;
  require_free(block->races.read_later(current_warp(), store.from, store.to.bytes), "stores");
  take(store);
  store.released = true;
}

void deliver(const BulkStore& store) {
  if (store.to.is_box) {
    for_parts(store.to, store.from, [&](const char* shared, char* memory, std::size_t bytes) {
      if (memory != nullptr) std::memcpy(memory, store.data.data() + (shared - shared_memory - store.from), bytes);
    });
  } else if (store.adds) {
    for (std::size_t n = 0; n < store.data.size(); n += sizeof(float)) {
      float value, sum;
      std::memcpy(&value, store.data.data() + n, sizeof value);
      std::memcpy(&sum, store.to.memory + n, sizeof sum);
      sum += value;
      std::memcpy(store.to.memory + n, &sum, sizeof sum);
    }
  } else {
    std::memcpy(store.to.memory, store.data.data(), store.data.size());
  }
}

void ask_to_store(std::uint32_t from, Place to, bool adds) {
  shared(from, to.bytes, to.is_box ? kBoxAlignment : kChunk);
  require_free(block->races.read_later(current_warp(), from, to.bytes), "stores");
  BulkStore store{.to = to, .from = from, .adds = adds};
  self().stores.open.push_back(store);
}

}  // namespace

void CopyEngine::start() {
  barriers_.clear();
  loads_.clear();
  stores_.clear();
  laziness_ = draw(4) * 2;
}

bool CopyEngine::work() {
  bool some = false;
  while (laziness_ != 0 && !loads_.empty() && draw(laziness_) == 0) some |= work_at_once();
  return some;
}

bool CopyEngine::work_at_once() {
  if (loads_.empty()) return false;
  std::swap(loads_[draw(std::uint32_t(loads_.size()))], loads_.back());
  const Load one = loads_.back();
  loads_.pop_back();
  bring(one.from, one.to);
  Mbarrier& mbarrier = barriers_.at(one.barrier);
  mbarrier.bytes -= static_cast<long long>(one.from.bytes);
  end_phase_if_complete(mbarrier);
  return true;
}

void CopyEngine::end_thread() {
  BulkStores& mine = self().stores;
  for (std::vector<BulkStore>& group : mine.groups) {
    for (BulkStore& store : group) {
      if (!store.released) fail("ends before its stores have read shared memory");
      stores_.push_back(std::move(store));
    }
  }
  if (!mine.open.empty()) fail("ends before it commits its stores");
  mine.groups.clear();
}

void CopyEngine::end_block() {
  for (const BulkStore& store : stores_) deliver(store);
  stores_.clear();
}

Mbarrier& CopyEngine::barrier(std::uint32_t address) {
  const auto place = barriers_.find(address);
  if (place == barriers_.end()) fail("takes something else for a barrier in shared memory");
  if (!block->races.read(current_warp(), address, kBarrierBytes))
    fail("uses a barrier that may not be initialised yet");
  return place->second;
}

void CopyEngine::initialise(std::uint32_t address, int arrivals) {
  written(address, kBarrierBytes);
  if (arrivals < 1) fail("initialises a barrier of no arrivals");
  if (int(barriers_.size()) >= kMostCopyBarriers) fail("initialises more barriers than the simulator has room for");
  if (barriers_.count(address) != 0) fail("initialises a barrier twice");
  const int number = int(barriers_.size());
  block->races.start_barrier(number, address);
  Mbarrier& mbarrier = barriers_[address];
  mbarrier.number = number;
  mbarrier.arrivals = mbarrier.missing = arrivals;
  mbarrier.initialised_by = current_warp();
}

void CopyEngine::announce() {
  for (auto& [address, one] : barriers_) one.announced |= one.initialised_by == current_warp();
}

void CopyEngine::end_phase_if_complete(Mbarrier& mbarrier) {
  if (mbarrier.missing != 0 || mbarrier.bytes != 0) return;
  ++mbarrier.phases;
  mbarrier.missing = mbarrier.arrivals;
  mbarrier.knowledge.take(mbarrier.arriving);
  block->races.end_phase(mbarrier.number, mbarrier.phases, mbarrier.knowledge);
  wake_all(mbarrier.waiting);
}

void CopyEngine::arrive(std::uint32_t address, int bytes) {
  Mbarrier& mbarrier = barrier(address);
  if (mbarrier.missing == 0) fail("arrives at a barrier that all have come to, in a phase that bytes are missing of");
  block->races.arrive(current_warp(), mbarrier.arriving);
  mbarrier.bytes += bytes;
  --mbarrier.missing;
  end_phase_if_complete(mbarrier);
}

void CopyEngine::ask(std::uint32_t to, Place from, std::uint32_t address) {
  Mbarrier& mbarrier = barrier(address);
  if (!mbarrier.announced) fail("gives the copy engine a barrier without fence.mbarrier_init");
  shared(to, from.bytes, from.is_box ? kBoxAlignment : kChunk);
  require_free(block->races.write_later(current_warp(), to, from.bytes, mbarrier.number, mbarrier.phases + 1),
               "has the copy engine write over");
  loads_.push_back({to, from, address});
}

Mbarrier& CopyEngine::barrier_of_cluster(std::uint32_t address) {
  const auto place = barriers_.find(address);
  if (place == barriers_.end()) fail("takes something else for a barrier in another block's shared memory");
  if (!place->second.announced) fail("uses a barrier of another block that may not be initialised yet");
  return place->second;
}

void CopyEngine::arrive(std::uint32_t address, const Knowledge& other_block) {
  Mbarrier& mbarrier = barrier_of_cluster(address);
  if (mbarrier.missing == 0) fail("arrives at a barrier that all have come to, in a phase that bytes are missing of");
  mbarrier.arriving.take(other_block);
  --mbarrier.missing;
  end_phase_if_complete(mbarrier);
}

void CopyEngine::ask(std::uint32_t to, Place from, std::uint32_t address, const Knowledge& other_block) {
  const Mbarrier& mbarrier = barrier_of_cluster(address);
  shared(to, from.bytes, from.is_box ? kBoxAlignment : kChunk);
  require_free(block->races.write_later(other_block, to, from.bytes, mbarrier.number, mbarrier.phases + 1),
               "has the copy engine write over");
  loads_.push_back({to, from, address});
}

void CopyEngine::store(std::uint32_t to, std::uint32_t value, std::uint32_t address, const Knowledge& other_block) {
  Mbarrier& mbarrier = barrier_of_cluster(address);
  char* const place = shared(to, sizeof value, sizeof value);
  require_free(block->races.write_later(other_block, to, sizeof value, mbarrier.number, mbarrier.phases + 1),
               "stores over");
  std::memcpy(place, &value, sizeof value);
  mbarrier.bytes -= static_cast<long long>(sizeof value);
  end_phase_if_complete(mbarrier);
}

std::string CopyEngine::describe_barriers() const {
  std::ostringstream text;
  int place = -1;  // in memory
  for (const auto& [address, one] : barriers_) {
    ++place;
    if (one.waiting.empty()) continue;
    text << "\n  barrier " << place << " at byte " << address << ": phase " << one.phases << " misses " << one.missing
         << " arrivals of " << one.arrivals << " and " << one.bytes << " bytes; waited for by warps";
    int last = -1;
    for (const int thread : one.waiting) {
      if (thread / kLanes != last) text << " " << (last = thread / kLanes);
    }
  }
  return text.str();
}

void mbarrier_init(std::uint32_t barrier, int arrivals) { block->copy_engine.initialise(barrier, arrivals); }
void fence_mbarrier_init() { block->copy_engine.announce(); }
void mbarrier_arrive(std::uint32_t barrier) { block->copy_engine.arrive(barrier, 0); }
void mbarrier_arrive_expect_tx(std::uint32_t barrier, int bytes) { block->copy_engine.arrive(barrier, bytes); }

bool mbarrier_try_wait_parity(std::uint32_t barrier, std::uint32_t parity) {
  Mbarrier& mbarrier = block->copy_engine.barrier(barrier);
  if (mbarrier.phases % 2 == parity) {
    mbarrier.waiting.push_back(current);
    wait_for("the barrier at byte %u", barrier);
  }
  if (mbarrier.phases % 2 == parity) return false;
  block->races.leave(current_warp(), mbarrier.knowledge);
  return true;
}

namespace {

constexpr int kRankBits = 24;  // an address in a cluster: a rank, plus one, above as many bits

Block& block_at(std::uint32_t& address) {
  const std::uint32_t rank = (address >> kRankBits) - 1;
  if (address >> kRankBits == 0 || rank >= block->cluster.size()) fail("takes something else for a cluster's address");
  address &= (1u << kRankBits) - 1;
  return *block->cluster[rank];
}

}  // namespace

std::uint32_t cluster_address(std::uint32_t address, int rank) {
  return address + (std::uint32_t(rank + 1) << kRankBits);
}

void mbarrier_arrive_cluster(std::uint32_t barrier) {
  Knowledge mine;
  block->races.arrive(current_warp(), mine);
  Block& there = block_at(barrier);
  const Within within(there);
  there.copy_engine.arrive(barrier, mine);
}

void store_async(std::uint32_t to, std::uint32_t value, std::uint32_t barrier) {
  const Knowledge mine = block->races.knowledge(current_warp());
  Block& there = block_at(to);
  if (&there != &block_at(barrier)) fail("names a barrier of another block than it stores to");
  const Within within(there);
  there.copy_engine.store(to, value, barrier, mine);
}

void bulk_copy_to_cluster(std::uint32_t to, std::uint32_t from, std::uint32_t barrier, int bytes) {
  const Place source = bytes_at(shared(from, std::size_t(bytes), kChunk), bytes);
  require_free(block->races.read_later(current_warp(), from, source.bytes), "copies");
  const Knowledge mine = block->races.knowledge(current_warp());
  Block& there = block_at(to);
  if (&there != &block_at(barrier)) fail("names a barrier of another block than it copies to");
  const Within within(there);
  there.copy_engine.ask(to, source, barrier, mine);
}

void fence_proxy_async() { block->races.fence(current_warp()); }

void bulk_tensor_load(std::uint32_t to, const void* map, std::uint32_t barrier, const int (&at)[4]) {
  block->copy_engine.ask(to, box_of(map, at), barrier);
}
void bulk_load(std::uint32_t to, const void* from, std::uint32_t barrier, int bytes) {
  block->copy_engine.ask(to, bytes_at(from, bytes), barrier);
}
void bulk_tensor_store(const void* map, std::uint32_t from, const int (&at)[4]) {
  ask_to_store(from, box_of(map, at), false);
}
void bulk_store(void* to, std::uint32_t from, int bytes) { ask_to_store(from, bytes_at(to, bytes), false); }
void bulk_add_f32(void* to, std::uint32_t from, int bytes) { ask_to_store(from, bytes_at(to, bytes), true); }

void bulk_commit_group() {
  BulkStores& stores = self().stores;
  if (draw(2) == 0) {
    for (BulkStore& store : stores.open) take(store);
  }
  stores.groups.push_back(std::move(stores.open));
  stores.open.clear();
}

void bulk_wait_group_read() {
  for (std::vector<BulkStore>& group : self().stores.groups) {
    for (BulkStore& store : group) release(store);
  }
}

void bulk_wait_group() {
  bulk_wait_group_read();
  for (const std::vector<BulkStore>& group : self().stores.groups) {
    for (const BulkStore& store : group) deliver(store);
  }
  self().stores.groups.clear();
}

}  // namespace strobe::simulator
