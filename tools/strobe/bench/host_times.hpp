// What calls on a GPU cost the host, and what the first ones cost.
#pragma once

#include "bench/output.hpp"

namespace strobe::tools {

/// The host's time of a planned and of a one-shot forward call, launch included; of the driver's launch alone; of
/// compiling the plain forward kernel, and of taking it from the disk cache.
void bench_host_times(int device, Output& output);

}  // namespace strobe::tools
