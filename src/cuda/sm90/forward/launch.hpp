// What other families ask of the Hopper forward kernel's host side (launch.cpp).
#pragma once

#include "base/device.hpp"
#include "base/problem.hpp"

namespace strobe::cuda::sm90_forward {

/// Whether the kernel serves the problem on the device, reads keys once for all query heads of a KV head where queries
/// are few, and splits them over multiprocessors that would have nothing to do. Not keys in pages, of which it brings
/// one at a time.
bool suits_few_rows(const Problem& problem, const CudaDevice& device);

}  // namespace strobe::cuda::sm90_forward
