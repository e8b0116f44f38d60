// Benchmarks on a GPU, timed by the GPU's own clock.
#pragma once

#include <string>
#include <vector>

#include "bench/output.hpp"

namespace strobe::tools {

/// Times each case whose name contains `filter`: after a rest, warm-ups, then `rounds` calls (0: 30); the median
/// counts. Memory-bound cases walk through more caches than the second-level cache holds, and are set against copies
/// within the device before and after them. `kernel` is part of the name of the family to take; "": what is planned.
/// Without rows: what calls cost the host, and what first calls cost.
void bench_on_gpu(int device, const std::vector<BenchCase>& rows, const std::string& filter, const std::string& kernel,
                  int rounds, Output& output);

}  // namespace strobe::tools
