// The CUDA backend's front: the GPUs there are, and what api calls to run a decision on one; plan asks the families
// (families.hpp). Arguments are checked before they come here. Index tensors lie in device memory and are never read by
// the host.
#pragma once

#include <string>

#include "base/operators.hpp"
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

/// Finds or compiles the decision's kernels on the device, so that running compiles nothing.
/// @throws Error naming what is missing, or with the compiler's log.
void prepare(const CudaDecision& decision, Stream stream);

/// Puts the work on the stream and returns. `workspace` is device memory of decision.workspace_bytes, 256-byte aligned;
/// null: taken from the stream's memory pool and given back behind the last kernel.
void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Stream stream, void* workspace);

/// Writes new_key and new_value (rotated where rotary is given) into the cache.
void append(const Problem& problem, const Buffers& buffers, Stream stream);
void merge(const MergeProblem& problem, Stream stream);
void softmax(const SoftmaxProblem& problem, Stream stream);
void softmax_backward(const SoftmaxProblem& problem, Stream stream);

}  // namespace strobe::cuda
