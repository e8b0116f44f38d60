// Times the busy loops on several threads at once.
#include "peaks/peaks.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "bench/pinning.hpp"
#include "files/array.hpp"
#include "measure.hpp"
#include "peaks/loops.hpp"

namespace strobe::tools {
namespace {

constexpr int kSlices = 5;
constexpr double kSliceSeconds = 4e-3;
// A thread's own: 8 times the last-level cache of 32 MiB that a few cores share. (What the system says of that cache is
// no guide: virtual machines report all the caches of their host.)
constexpr std::int64_t kReadBytes = std::int64_t(256) << 20;

/// Memory that every thread reads a part of: made once, resident.
const Buffer& read_memory(int threads) {
  static Buffer memory;
  const auto bytes = std::size_t(kReadBytes * threads);
  if (memory.size() < bytes) {
    memory = Buffer(bytes);
    std::memset(memory.data(), 0, bytes);
  }
  return memory;
}

/// Calls slice(thread) kSlices times on each of `threads` threads that start together; it returns work done. The sum
/// of the threads' median rates per second: a slice that the system interrupted does not count.
template <typename Slice>
double rate_together(int threads, const Slice& slice) {
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::atomic<int> ready{0};
  const auto body = [&](int thread) {
    pin_this_thread(thread);
    slice(thread);  // warm up
    ready.fetch_add(1);
    while (ready.load() < threads) {
    }
    std::vector<double> mine;
    for (int i = 0; i < kSlices; ++i) {
      double work = 0;
      const double time = seconds([&] { work = slice(thread); });
      mine.push_back(work / time);
    }
    rates[std::size_t(thread)] = median(mine);
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, thread);
  body(0);
  for (std::thread& other : others) other.join();
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

std::atomic<float> kept;  // results go here, so that no loop is dead code

double compute_peak(float (*loop)(std::int64_t), double flops, int threads) {
  constexpr std::int64_t kProbe = 20000;
  const double probe = seconds([&] { kept = loop(kProbe); });
  const auto rounds = std::max<std::int64_t>(std::int64_t(kSliceSeconds / std::max(probe, 1e-9) * kProbe), 1);
  return rate_together(threads, [&](int) {
    kept = loop(rounds);
    return flops * double(rounds);
  });
}

double read_peak(float (*sum)(const float*, std::int64_t), int threads) {
  const Buffer& memory = read_memory(threads);
  const std::size_t each = memory.size() / std::size_t(threads) / 4096 * 4096;
  std::vector<std::size_t> next(static_cast<std::size_t>(threads));
  const std::size_t part = each / (kSlices + 1) / 4096 * 4096;
  return rate_together(threads, [&](int thread) {
    std::size_t& at = next[std::size_t(thread)];
    const std::byte* from = memory.data() + std::size_t(thread) * each + at;
    kept = sum(reinterpret_cast<const float*>(from), std::int64_t(part / sizeof(float)));
    at = at + 2 * part <= each ? at + part : 0;
    return double(part);
  });
}

}  // namespace

const char* name_of(PeakKind kind) {
  switch (kind) {
    case PeakKind::kDot:
      return "bf16 dot";
    case PeakKind::kTiles:
      return "bf16 tiles";
    case PeakKind::kRead:
      return "memory read";
    case PeakKind::kMultiplyAdd:
      break;
  }
  return "FMA";
}

double measure(Peak peak, int threads) {
  const cpu::PeakLoops& loops = cpu::pick_peak_loops(peak.isa);
  switch (peak.kind) {
    case PeakKind::kDot:
      return compute_peak(loops.dot, loops.dot_flops, threads) / 1e9;
    case PeakKind::kTiles:
      return compute_peak(loops.tiles, loops.tile_flops, threads) / 1e9;
    case PeakKind::kRead:
      return read_peak(loops.sum, threads) / 1e9;
    case PeakKind::kMultiplyAdd:
      break;
  }
  return compute_peak(loops.multiply_add, loops.multiply_add_flops, threads) / 1e9;
}

}  // namespace strobe::tools
