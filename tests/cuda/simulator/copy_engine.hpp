// The copy engine of sm_90 (TMA), and the barriers in shared memory that count its bytes: PTX ISA, "mbarrier" and
// "Data Movement and Conversion Instructions: Bulk copy". What it is asked for happens as late as it may, or at any
// time before, by chance and in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "cuda/simulator/background.hpp"
#include "cuda/simulator/races.hpp"
#include "cuda/simulator/tensor_map.hpp"

namespace strobe::simulator {

/// A box of a tensor, or bytes that lie together.
struct Place {
  bool is_box = false;
  TensorDescription tensor{};
  int at[4] = {};
  char* memory = nullptr;
  std::size_t bytes = 0;
};

struct BulkStore {
  Place to;
  std::uint32_t from = 0;
  bool adds = false, read = false, released = false;
  std::vector<char> data{};  // once it is read
};

/// The bulk groups of a thread.
struct BulkStores {
  std::vector<BulkStore> open;
  std::deque<std::vector<BulkStore>> groups;
};

struct Mbarrier {
  int number = 0;                 // of those initialised
  int arrivals = 0, missing = 0;  // of each phase, and of the one under way
  long long bytes = 0;            // expected and not there yet
  std::uint32_t phases = 0;       // that have ended
  int initialised_by = 0;         // a warp
  bool announced = false;         // to the copy engine
  Knowledge arriving, knowledge;
  std::vector<int> waiting;
};

/// What a block has asked for, and its barriers.
class CopyEngine {
 public:
  /// A block begins. How soon things happen is left to chance.
  void start();
  /// Lets something happen, or nothing. Returns whether something did.
  bool work();
  /// Makes something happen. Returns false if nothing is to be done.
  bool work_at_once();
  /// The fiber that runs has come to its end.
  void end_thread();
  /// The block has: writes what is still to be written.
  void end_block();

  Mbarrier& barrier(std::uint32_t address);
  void initialise(std::uint32_t address, int arrivals);
  void announce();
  void arrive(std::uint32_t address, int bytes);
  void ask(std::uint32_t to, Place from, std::uint32_t barrier);
  // The same asked for by a warp of another block of the cluster, which knows so much.
  void arrive(std::uint32_t address, const Knowledge& other_block);
  void ask(std::uint32_t to, Place from, std::uint32_t barrier, const Knowledge& other_block);
  void store(std::uint32_t to, std::uint32_t value, std::uint32_t barrier, const Knowledge& other_block);
  /// Of those that somebody waits for, in the order of memory: "barrier 3 at byte 1024: phase 2 misses 1 arrivals ..."
  std::string describe_barriers() const;

 private:
  struct Load {
    std::uint32_t to;
    Place from;
    std::uint32_t barrier;
  };
  Mbarrier& barrier_of_cluster(std::uint32_t address);
  void end_phase_if_complete(Mbarrier& barrier);

  std::map<std::uint32_t, Mbarrier> barriers_;
  std::vector<Load> loads_;
  std::vector<BulkStore> stores_;  // of threads that have ended, read and not written
  std::uint32_t laziness_ = 0;     // one step in so many lets something happen; 0: none
};

}  // namespace strobe::simulator
