// Races on shared memory, by the clocks of warps: a warp knows what another one did before the last barrier that both
// took part in. What it reads must have been written by then, what it writes must have been read and written by then.
// The copy engine and the matrix units see what warps wrote only behind a fence (PTX ISA, "Async proxy"). Lanes of one
// warp count as one. Only accesses through ptx.cuh and hopper.cuh are seen.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace strobe::simulator {

constexpr int kMostWarps = 16, kMostCopyBarriers = 48;
/// Who writes to a block's memory: warps, and for each barrier that counts bytes the copy engine on its behalf.
constexpr int kWritersOfBlock = kMostWarps + kMostCopyBarriers, kMostOfCluster = 2;
constexpr int kWriters = kMostOfCluster * kWritersOfBlock;

/// What is known of every writer's time: those of a cluster's blocks one after another.
using Clock = std::array<std::uint32_t, kWriters>;

/// The same of what the copy engine and the matrix units see as well.
struct Knowledge {
  Clock all{}, fenced{};

  void take(const Knowledge& other);
};

class Races {
 public:
  /// So many are of any interest.
  static int writers_in_use;

  /// Forgets everything: a block of so many warps begins, which has this number in its cluster.
  void start(int warps, int rank, std::size_t shared_bytes);
  /// There is a barrier that counts bytes, at this address.
  void start_barrier(int copy_barrier, std::uint32_t address) { barriers_[std::size_t(copy_barrier)] = address; }

  /// Whether the access is free of races with those before it.
  bool read(int warp, std::uint32_t address, std::size_t bytes);
  bool write(int warp, std::uint32_t address, std::size_t bytes);
  /// Of what is there already, which another warp may have written at the same time.
  bool write_same(int warp, std::uint32_t address, std::size_t bytes);

  /// The same by a matrix unit or the copy engine, which the warp asked for it.
  enum class Answer { kFree, kRace, kNoFence };
  Answer read_later(int warp, std::uint32_t address, std::size_t bytes);
  /// What the copy engine writes is known to those who know that the barrier's phase `time` has ended.
  Answer write_later(int warp, std::uint32_t address, std::size_t bytes, int copy_barrier, std::uint32_t time);

  /// The same for a warp of another block of the cluster, which knows so much.
  Answer write_later(const Knowledge& other_block, std::uint32_t address, std::size_t bytes, int copy_barrier,
                     std::uint32_t time);

  const Knowledge& knowledge(int warp) const { return warps_[std::size_t(warp)]; }

  /// The warp comes to a barrier: adds what it knows to the barrier's knowledge.
  void arrive(int warp, Knowledge& barrier);
  /// The warp leaves it.
  void leave(int warp, const Knowledge& barrier);
  /// What the warp knows is known to the matrix units and to the copy engine, where they hear of it from the warp.
  void fence(int warp);

  /// Of the last access that was not free: "byte 1024, written by warp 3".
  std::string last_conflict() const;

  void end_phase(int copy_barrier, std::uint32_t time, Knowledge& barrier) const;

 private:
  struct Write {
    int writer = -1;
    std::uint32_t time = 0;  // the writer's
  };
  struct Word {
    Write written;
    bool same = false;                             // others have written the same at the same time
    std::array<std::uint32_t, kMostWarps> read{};  // by each warp, at its time
  };
  bool knows(int warp, const Write& write) const {
    return write.writer == warp || knows(warps_[std::size_t(warp)].all, write);
  }
  bool knows(const Clock& clock, const Write& write) const {
    return write.writer < 0 || write.time <= clock[place_of(write.writer)];
  }
  /// A writer's in clocks.
  std::size_t place_of(int writer) const { return std::size_t(first_ + writer); }
  bool knows_some_write(int warp, std::size_t word) const;
  /// `warp` of this block, or -1: one that is not.
  bool knows_all(const Clock& clock, int warp, std::size_t word) const;
  bool has_fence(const Clock& fenced, std::size_t word) const;
  Answer write_later(const Knowledge& known, int warp, std::uint32_t address, std::size_t bytes, int copy_barrier,
                     std::uint32_t time);
  bool write(int warp, std::uint32_t address, std::size_t bytes, bool same);
  bool conflicts(std::size_t word);
  std::uint32_t time_of(int warp) const { return warps_[std::size_t(warp)].all[place_of(warp)]; }

  int first_ = 0;  // of the block's writers
  std::vector<Knowledge> warps_;
  std::vector<Word> words_;
  std::array<std::uint32_t, kMostCopyBarriers> barriers_{};   // where they lie
  std::unordered_map<std::size_t, std::vector<Write>> same_;  // the others, by word
  std::size_t conflict_ = 0;                                  // a word
};

}  // namespace strobe::simulator
