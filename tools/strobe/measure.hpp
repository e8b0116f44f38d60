// Clocks, statistics and memory of this process.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/problem.hpp"

namespace strobe::tools {

/// Seconds that one call takes.
template <typename Call>
double seconds(const Call& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values);
/// Half the distance between the quartiles over the median: how far a typical round is off.
double spread(std::vector<double> values);

/// The most memory that was resident while something ran, beyond what was resident before. Nothing where the operating
/// system does not tell.
class PeakMemory {
 public:
  PeakMemory();
  std::optional<std::int64_t> extra_bytes() const;

 private:
  std::optional<std::int64_t> before_;
};

/// Operations of a problem by the convention of plan::cost, with the lengths that its tensors hold.
double actual_flops(const Problem& problem, const Buffers& buffers);

}  // namespace strobe::tools
