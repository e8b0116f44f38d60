// Clocks, statistics and memory of this process.
#include "measure.hpp"

#include <algorithm>
#include <fstream>
#include <string>

#include "cpu/sequence.hpp"
#include "plan/plan.hpp"

namespace strobe::tools {
namespace {

/// A line of /proc/self/status in bytes.
std::optional<std::int64_t> status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kibibytes = 0;
    if (word == key && status >> kibibytes) return kibibytes * 1024;
  }
  return std::nullopt;
}

double quantile(std::vector<double>& values, double fraction) {
  const auto at = std::size_t(fraction * double(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(at), values.end());
  return values[at];
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double spread(std::vector<double> values) {
  const double middle = median(values);
  if (values.size() < 2 || middle == 0) return 0;
  return (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / middle;
}

PeakMemory::PeakMemory() {
  // Writing 5 sets the peak back to what is resident now (proc(5)).
  std::ofstream reset("/proc/self/clear_refs");
  reset << 5 << std::flush;
  if (reset) before_ = status_bytes("VmRSS:");
}

std::optional<std::int64_t> PeakMemory::extra_bytes() const {
  const auto peak = status_bytes("VmHWM:");
  if (!before_ || !peak) return std::nullopt;
  return std::max<std::int64_t>(*peak - *before_, 0);
}

double actual_flops(const Problem& problem, const Buffers& buffers) {
  double flops = 0;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const cpu::Sequence sequence = cpu::sequence_of(problem, buffers, b);
    Problem one = problem;
    one.batch = 1;
    one.packed_queries = one.packed_keys = false;
    one.query_length = sequence.queries;
    one.key_length = sequence.keys;
    flops += plan::cost(one).flops;
  }
  return flops;
}

}  // namespace strobe::tools
