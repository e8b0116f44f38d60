// The state of the block that runs, for the parts of the machine: its fibers, what they wait for, and what is under way
// in the background.
#pragma once

#include <array>
#include <csetjmp>
#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include <ucontext.h>

#include "cuda/simulator/copy_engine.hpp"
#include "cuda/simulator/machine.hpp"
#include "cuda/simulator/matrix_unit.hpp"
#include "cuda/simulator/races.hpp"

namespace strobe::simulator {

/// 16 bytes of cp.async.
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
  bool waited_for_grids = false;
  const char* waits_for = "";  // a format for `waits_for_number`
  std::uint32_t waits_for_number = 0;
  int registers = 0;
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
  BulkStores stores;
};

/// Lanes that wait for each other, by the lowest lane of their mask.
struct Meeting {
  std::uint32_t mask = 0, here = 0;
  void* brought[kLanes] = {};
};

/// A named barrier.
struct Barrier {
  int here = 0;
  bool some = false, answer = false;
  Knowledge knowledge;
  std::vector<int> waiting;
};

struct Block {
  static constexpr int kBarriers = 16;

  /// Begins, with fibers that are ready to start.
  /// `rank` is its number in its cluster.
  void start(Index place, int rank, unsigned threads, std::size_t bytes);
  /// The thread that runs has come to its end.
  void end_thread();

  Index index;
  int rank = 0;
  std::vector<Block*> cluster;  // by rank
  std::vector<Fiber> fibers;
  int live = 0;                                       // threads that have not ended
  std::uint32_t laziness = 1;                         // runs once in so many rounds
  std::vector<int> order;                             // of warps
  std::vector<std::array<Meeting, kLanes>> meetings;  // by warp
  Barrier barriers[kBarriers];
  Barrier of_cluster;
  Races races;
  CopyEngine copy_engine;
  MatrixUnits matrix_units;
  std::size_t shared_bytes = 0;
  int free_registers = 0;
  std::vector<int> waiting_for_registers;
  alignas(1024) char memory[kMostShared];
};

extern Block* block;
/// The thread that runs.
extern int current;
/// What is left to chance.
extern std::mt19937 chance;

/// Takes the place of the block that runs, for a while: what is done to another block of its cluster.
class Within {
 public:
  explicit Within(Block& other);
  ~Within();
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;

 private:
  Block* const before_ = block;
};

inline Fiber& self() { return block->fibers[std::size_t(current)]; }
inline int current_warp() { return current / kLanes; }
inline std::uint32_t draw(std::uint32_t below) { return std::uint32_t(chance() % below); }

/// Lets others run until someone calls wake() for this thread. `what` is a format for `number`.
void wait_for(const char* what, std::uint32_t number = 0);
void wake(int thread);
void wake_all(std::vector<int>& threads);

/// Where the copy engine and wgmma find what an address says, under the 128-byte swizzle.
inline std::uint32_t swizzled(std::uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

/// Where an address of shared memory lies. Ends the launch with an error if [address, address + bytes) is outside of
/// the block's, or not aligned to `alignment`.
char* shared(std::uint32_t address, std::size_t bytes, std::size_t alignment);

/// Ends the launch with an error if an access to shared memory is not free of races. `what` the thread does then; or
/// what it does whatever lies there, as in "multiplies".
void require_free(bool free, const char* what);
void require_free(Races::Answer answer, const char* does);

}  // namespace strobe::simulator
