// The named sets of benchmark cases.
#pragma once

#include <string>
#include <vector>

#include "bench/case.hpp"

namespace strobe::tools {

/// Names that --preset takes on a device, the default first.
std::vector<std::string> preset_names(DeviceKind kind);
/// @throws UsageError for a name that the device has not.
std::vector<BenchCase> preset(const std::string& name, DeviceKind kind);
/// "float32 forward d128 N4096 causal"
std::string describe(const BenchCase& row);

}  // namespace strobe::tools
