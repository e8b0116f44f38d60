// See cuda.hpp.
#include "bench/cuda.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <thread>

#include "bench/gpu_problem.hpp"
#include "bench/host_times.hpp"
#include "bench/matrix_product.hpp"
#include "bench/presets.hpp"
#include "gpu/graph.hpp"
#include "measure.hpp"

namespace strobe::tools {
namespace {

// As the figures were measured that ours are compared with (bench/results).
constexpr int kRounds = 30, kWarmUps = 5;
constexpr std::chrono::milliseconds kRest{200};
constexpr std::size_t kCopyBytes = std::size_t(512) << 20;

class GpuClock {
 public:
  explicit GpuClock(int device) : device_(device), stream_(device), memory_(device, 2 * kCopyBytes) {}

  cuda::Stream stream() const { return stream_.get(); }

  /// Seconds of each of `rounds` calls after some that do not count. The GPU is kept busy until the host has put all of
  /// them on the stream, so that no round waits for its launch.
  template <typename Call>
  std::vector<double> time(const Call& call, int warm_ups, int rounds) {
    constexpr int kBusy = 4;  // fills of a gigabyte, a third of a millisecond each
    for (int i = 0; i < kBusy; ++i) cuda::fill(stream(), memory_.data(), 0, memory_.bytes());
    for (int i = 0; i < warm_ups; ++i) call();
    std::deque<cuda::Event> begins, ends;
    for (int round = 0; round < rounds; ++round) {
      begins.emplace_back(device_).record(stream());
      call();
      ends.emplace_back(device_).record(stream());
    }
    cuda::synchronise(stream());
    std::vector<double> times;
    for (int round = 0; round < rounds; ++round) {
      times.push_back(begins[std::size_t(round)].milliseconds_until(ends[std::size_t(round)]) / 1e3);
    }
    return times;
  }

  /// GB/s of copies within the device, reads and writes counted.
  double copy_rate() {
    constexpr int kCopies = 5;
    auto* to = static_cast<char*>(memory_.data());
    const auto copy = [&] { gpu::copy_on_device(stream(), to, to + kCopyBytes, kCopyBytes); };
    return 2.0 * double(kCopyBytes) / median(time(copy, 1, kCopies)) / 1e9;
  }

  /// GFLOP/s of matrix products; 0 where there is no cuBLAS.
  double product_rate() {
    constexpr int kProducts = 5;
    if (!looked_for_product_) product_ = MatrixProduct::on(stream());
    looked_for_product_ = true;
    return product_ ? MatrixProduct::kFlops / median(time([&] { product_->run(); }, 1, kProducts)) / 1e9 : 0;
  }

 private:
  int device_;
  cuda::OwnStream stream_;
  cuda::DeviceMemory memory_;
  std::unique_ptr<MatrixProduct> product_;
  bool looked_for_product_ = false;
};

Row measure(GpuClock& clock, const BenchCase& row, const std::string& kernel, int rounds) {
  GpuProblem problem(row, clock.stream(), kernel);
  Row result;
  result.memory_bound = row.pass == "decode";
  result.kernel = problem.kernel();
  std::this_thread::sleep_for(kRest);
  const double before = result.memory_bound ? clock.copy_rate() : 0;
  const std::vector<double> times = clock.time([&] { problem.run(); }, kWarmUps, rounds > 0 ? rounds : kRounds);
  const plan::Cost cost = problem.cost();
  result.ms = median(times) * 1e3;
  result.spread = spread(times);
  result.rate = (result.memory_bound ? cost.bytes : cost.flops) / median(times) / 1e9;
  if (result.memory_bound) {
    result.peak = (before + clock.copy_rate()) / 2;
    result.peak_name = "device copy";
  } else if (row.against_products) {
    result.peak = clock.product_rate();
    result.peak_name = "matrix product";
  }
  if (result.peak > 0) result.fraction = result.rate / result.peak;
  if (!row.option.empty()) {
    result.share = problem.share_of_tiles();
    // A bias cannot be had without reading it once.
    if (problem.bias_bytes() > 0) result.unavoidable_ms = problem.bias_bytes() / clock.copy_rate() / 1e6;
  }
  return result;
}

/// The times of plain cases, by what options do not change.
class PlainTimes {
 public:
  /// Sets an option's time against that of its plain case, if that was among the cases before it.
  void compare(const BenchCase& row, Row& result) {
    BenchCase plain = row;
    plain.option.clear();
    const std::string name = describe(plain);
    if (row.option.empty()) {
      times_[name] = result.ms;
    } else if (const auto found = times_.find(name); found != times_.end()) {
      result.times_plain = (result.ms - result.unavoidable_ms) / found->second;
    }
  }

 private:
  std::map<std::string, double> times_;
};

}  // namespace

void bench_on_gpu(int device, const std::vector<BenchCase>& rows, const std::string& filter, const std::string& kernel,
                  int rounds, Output& output) {
  if (rows.empty()) return bench_host_times(device, output);
  GpuClock clock(device);
  output.text("{}; medians of {} calls timed on the GPU\n\n",
              strobe::describe({.kind = DeviceKind::kCuda, .index = device}), rounds > 0 ? rounds : kRounds);
  output.heading();
  PlainTimes plain;
  for (const BenchCase& row : rows) {
    if (row.name.find(filter) == std::string::npos) continue;
    progress(row.name);
    try {
      Row result = measure(clock, row, kernel, rounds);
      plain.compare(row, result);
      output.row(row, result);
      output.line(json_of(row, result, "cuda", 0));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      output.text("{:44} {}\n", row.name, error.what());
      output.line({{"case", row.name}, {"backend", "cuda"}, {"unsupported", error.what()}});
    }
  }
}

}  // namespace strobe::tools
