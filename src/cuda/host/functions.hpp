// Kernels that are loaded: from (context, key) to a function of the driver. Finding one takes no lock; what is not
// there yet is taken from the kernel store and loaded, by one thread at a time for each kernel.
#pragma once

#include "cuda/host/devices.hpp"
#include "cuda/kernel_key.hpp"

namespace strobe::cuda {

/// The loaded kernel in the context that is current, which has the number `context_id`.
/// @throws Error if the kernel store has no such kernel and cannot make it, or the driver does not load it.
CuFunction loaded_function(const KernelKey& key, unsigned long long context_id, const CudaDevice& device);

}  // namespace strobe::cuda
