// What --device and --architecture name.
#pragma once

#include <string>

#include "base/device.hpp"
#include "strobe/strobe.hpp"

namespace strobe::tools {

/// "cpu", "cuda" (the first GPU) or "cuda:1".
/// @throws UsageError for anything else.
Device parse_device(const std::string& text);

/// The GPU to plan for: one of this machine ("cuda", "cuda:1") or a known one, by name ("cuda:h200") or by architecture
/// ("cuda:sm_90").
/// @throws UsageError for a name that is not known, Error where this machine has no such GPU.
const CudaDevice& parse_cuda_device(const std::string& text);

}  // namespace strobe::tools
