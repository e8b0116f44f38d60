// Vector clocks, as in FastTrack (Flanagan and Freund, PLDI 2009), for four bytes of memory at a time.
#include "cuda/simulator/races.hpp"

#include <algorithm>

namespace strobe::simulator {
namespace {

constexpr std::size_t kWordBytes = 4;

}  // namespace

void Races::start(int warps, std::size_t shared_bytes) {
  warps_ = warps;
  clocks_.assign(std::size_t(warps), Clock{});
  for (int warp = 0; warp < warps; ++warp) clocks_[std::size_t(warp)][std::size_t(warp)] = 1;
  words_.assign((shared_bytes + kWordBytes - 1) / kWordBytes, Word());
}

bool Races::knows_write(int warp, const Word& word) const {
  return word.writer < 0 || word.writer == warp || word.written <= clocks_[std::size_t(warp)][std::size_t(word.writer)];
}

bool Races::read(int warp, std::uint32_t address, std::size_t bytes) {
  bool known = true;
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    known &= knows_write(warp, words_[n]);
    words_[n].read[std::size_t(warp)] = clocks_[std::size_t(warp)][std::size_t(warp)];
  }
  return known;
}

bool Races::write(int warp, std::uint32_t address, std::size_t bytes) {
  bool known = true;
  const Clock& clock = clocks_[std::size_t(warp)];
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    Word& word = words_[n];
    known &= knows_write(warp, word);
    for (int other = 0; other < warps_; ++other) {
      known &= other == warp || word.read[std::size_t(other)] <= clock[std::size_t(other)];
    }
    word.writer = warp;
    word.written = clock[std::size_t(warp)];
  }
  return known;
}

void Races::arrive(int warp, Clock& barrier) {
  Clock& clock = clocks_[std::size_t(warp)];
  for (std::size_t n = 0; n < clock.size(); ++n) barrier[n] = std::max(barrier[n], clock[n]);
  ++clock[std::size_t(warp)];
}

void Races::leave(int warp, const Clock& barrier) {
  Clock& clock = clocks_[std::size_t(warp)];
  for (std::size_t n = 0; n < clock.size(); ++n) clock[n] = std::max(clock[n], barrier[n]);
}

}  // namespace strobe::simulator
