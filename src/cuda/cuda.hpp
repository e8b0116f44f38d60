// The CUDA backend's front: what plan asks (does a family serve this, and how) and what api calls (run it). Arguments
// are checked before they come here. Index tensors lie in device memory and are never read by the host.
#pragma once

#include <string>

#include "base/problem.hpp"
#include "cuda/decision.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda {

/// GPUs that this process sees; 0 without a driver. Looked up once.
int device_count();
/// Why device_count() is 0: "" or one sentence that names what is missing.
const std::string& why_no_device();
/// @throws Error (kUnsupported) naming what is missing: the driver, a newer one, the device.
const CudaDevice& device(int index);

/// Whether a kernel family serves the problem on the device; otherwise why not, in one clause.
bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not);
/// Fills the decision for a problem that is served: kernels, tiles, splits, workspace. Allocates nothing.
void decide(const Problem& problem, const CudaDevice& device, CudaDecision& decision);

/// Finds or compiles the decision's kernels on the device, so that running compiles nothing.
/// @throws Error naming what is missing, or with the compiler's log.
void prepare(const CudaDecision& decision, Stream stream);

/// Puts the work on the stream and returns. `workspace` is device memory of decision.workspace_bytes, 256-byte aligned;
/// null: taken from the stream's memory pool and given back behind the last kernel.
void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Stream stream, void* workspace);

}  // namespace strobe::cuda
