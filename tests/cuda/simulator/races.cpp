// Vector clocks, as in FastTrack (Flanagan and Freund, PLDI 2009), for four bytes of memory at a time.
#include "cuda/simulator/races.hpp"

#include <algorithm>
#include <sstream>

namespace strobe::simulator {
namespace {

constexpr std::size_t kWordBytes = 4;

void take_latest(Clock& clock, const Clock& other) {
  for (int n = 0; n < Races::writers_in_use; ++n) clock[n] = std::max(clock[n], other[n]);
}

}  // namespace

void Knowledge::take(const Knowledge& other) {
  take_latest(all, other.all);
  take_latest(fenced, other.fenced);
}

int Races::writers_in_use = kWritersOfBlock;

void Races::start(int warps, int rank, std::size_t shared_bytes) {
  first_ = rank * kWritersOfBlock;
  warps_.assign(std::size_t(warps), Knowledge());
  for (int warp = 0; warp < warps; ++warp) warps_[std::size_t(warp)].all[place_of(warp)] = 1;
  words_.assign((shared_bytes + kWordBytes - 1) / kWordBytes, Word());
  same_.clear();
}

bool Races::knows_some_write(int warp, std::size_t word) const {
  if (knows(warp, words_[word].written)) return true;
  if (!words_[word].same) return false;
  const std::vector<Write>& others = same_.at(word);
  return std::any_of(others.begin(), others.end(), [&](const Write& other) { return knows(warp, other); });
}

bool Races::knows_all(const Clock& clock, int warp, std::size_t word) const {
  const auto known = [&](const Write& write) { return write.writer == warp || knows(clock, write); };
  if (!known(words_[word].written)) return false;
  for (int other = 0; other < int(warps_.size()); ++other) {
    if (other != warp && words_[word].read[std::size_t(other)] > clock[place_of(other)]) return false;
  }
  if (!words_[word].same) return true;
  const std::vector<Write>& others = same_.at(word);
  return std::all_of(others.begin(), others.end(), known);
}

bool Races::has_fence(const Clock& clock, std::size_t word) const {
  const auto fenced = [&](const Write& write) { return knows(clock, write); };
  if (fenced(words_[word].written)) return true;
  if (!words_[word].same) return false;
  const std::vector<Write>& others = same_.at(word);
  return std::any_of(others.begin(), others.end(), fenced);
}

/// Remembers the word. Returns true.
bool Races::conflicts(std::size_t word) {
  conflict_ = word;
  return true;
}

std::string Races::last_conflict() const {
  const Word& word = words_[conflict_];
  const int writer = word.written.writer;
  std::ostringstream text;
  text << "byte " << conflict_ * kWordBytes;
  if (writer >= kMostWarps) {
    text << ", written by the copy engine for the barrier at byte " << barriers_[std::size_t(writer - kMostWarps)];
  }
  if (writer >= 0 && writer < kMostWarps) text << ", written by warp " << writer;
  for (std::size_t warp = 0; warp < warps_.size(); ++warp) {
    if (word.read[warp] > 0) text << ", read by warp " << warp;
  }
  return text.str();
}

bool Races::read(int warp, std::uint32_t address, std::size_t bytes) {
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    if (!knows_some_write(warp, n)) return !conflicts(n);
    words_[n].read[std::size_t(warp)] = time_of(warp);
  }
  return true;
}

bool Races::write(int warp, std::uint32_t address, std::size_t bytes) { return write(warp, address, bytes, false); }
bool Races::write_same(int warp, std::uint32_t address, std::size_t bytes) { return write(warp, address, bytes, true); }

bool Races::write(int warp, std::uint32_t address, std::size_t bytes, bool same) {
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    Word& word = words_[n];
    const Write mine{warp, time_of(warp)};
    if (knows_all(warps_[std::size_t(warp)].all, warp, n)) {
      word.written = mine;
      word.same = false;
    } else if (same && word.written.writer < kMostWarps) {
      if (!word.same) same_[n].clear();
      word.same = true;
      same_[n].push_back(mine);
    } else {
      return !conflicts(n);
    }
  }
  return true;
}

Races::Answer Races::read_later(int warp, std::uint32_t address, std::size_t bytes) {
  Answer answer = Answer::kFree;
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    if (!knows_some_write(warp, n) && conflicts(n)) return Answer::kRace;
    if (!has_fence(warps_[std::size_t(warp)].fenced, n) && conflicts(n)) answer = Answer::kNoFence;
    words_[n].read[std::size_t(warp)] = time_of(warp);
  }
  return answer;
}

Races::Answer Races::write_later(int warp, std::uint32_t address, std::size_t bytes, int copy_barrier,
                                 std::uint32_t time) {
  return write_later(warps_[std::size_t(warp)], warp, address, bytes, copy_barrier, time);
}
Races::Answer Races::write_later(const Knowledge& other_block, std::uint32_t address, std::size_t bytes,
                                 int copy_barrier, std::uint32_t time) {
  return write_later(other_block, -1, address, bytes, copy_barrier, time);
}

Races::Answer Races::write_later(const Knowledge& known, int warp, std::uint32_t address, std::size_t bytes,
                                 int copy_barrier, std::uint32_t time) {
  Answer answer = Answer::kFree;
  for (std::size_t n = address / kWordBytes; n < (address + bytes) / kWordBytes; ++n) {
    if (!knows_all(known.all, warp, n) && conflicts(n)) return Answer::kRace;
    if (!has_fence(known.fenced, n) && conflicts(n)) answer = Answer::kNoFence;
    words_[n].written = {kMostWarps + copy_barrier, time};
    words_[n].same = false;
  }
  return answer;
}

void Races::arrive(int warp, Knowledge& barrier) {
  Knowledge& mine = warps_[std::size_t(warp)];
  barrier.take(mine);
  ++mine.all[place_of(warp)];
}

void Races::leave(int warp, const Knowledge& barrier) { warps_[std::size_t(warp)].take(barrier); }

void Races::fence(int warp) {
  Knowledge& mine = warps_[std::size_t(warp)];
  mine.fenced = mine.all;
  ++mine.all[place_of(warp)];
}

void Races::end_phase(int copy_barrier, std::uint32_t time, Knowledge& barrier) const {
  const std::size_t place = place_of(kMostWarps + copy_barrier);
  barrier.all[place] = barrier.fenced[place] = time;
}

}  // namespace strobe::simulator
