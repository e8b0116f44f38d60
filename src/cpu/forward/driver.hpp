// What the sizing functions of the forward kernels share with the driver that runs both of them.
#pragma once

#include <cstddef>

#include "base/decision.hpp"

namespace strobe::cpu {

/// Fills worker_bytes and shared_bytes of a forward decision whose variant, isa, splits, decode_rows and workers are
/// decided: private scratch for both kernels, then rotated queries, partial results and the table of chunks.
void size_forward_workspace(const Problem& problem, Decision& decision);

}  // namespace strobe::cpu
