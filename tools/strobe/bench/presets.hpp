// The named sets of benchmark cases.
#pragma once

#include <string>
#include <vector>

#include "bench/case.hpp"

namespace strobe::tools {

/// Names that --preset takes.
std::vector<std::string> preset_names();
std::vector<BenchCase> preset(const std::string& name);
/// "float32 forward d128 N4096 causal"
std::string describe(const BenchCase& row);

}  // namespace strobe::tools
