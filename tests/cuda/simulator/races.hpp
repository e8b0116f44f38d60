// Races on shared memory, by the clocks of warps: a warp knows what another one did before the last barrier that both
// took part in. What it reads must have been written by then, what it writes must have been read and written by then.
// Lanes of one warp count as one. Only accesses through ptx.cuh are seen.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace strobe::simulator {

constexpr int kMostWarps = 16;

/// What is known of every warp's time.
using Clock = std::array<std::uint32_t, kMostWarps>;

class Races {
 public:
  /// Forgets everything: a block of so many warps begins.
  void start(int warps, std::size_t shared_bytes);

  /// Whether the access is free of races with those before it.
  bool read(int warp, std::uint32_t address, std::size_t bytes);
  bool write(int warp, std::uint32_t address, std::size_t bytes);

  /// The warp comes to a barrier: adds what it knows to the barrier's knowledge.
  void arrive(int warp, Clock& barrier);
  /// The warp leaves it.
  void leave(int warp, const Clock& barrier);

 private:
  struct Word {
    int writer = -1;
    std::uint32_t written = 0;  // the writer's time
    Clock read{};               // by each warp, at its time
  };
  bool knows_write(int warp, const Word& word) const;

  int warps_ = 0;
  std::vector<Clock> clocks_;
  std::vector<Word> words_;
};

}  // namespace strobe::simulator
