// The front desk's calls on CUDA: past the checks, to plan and the CUDA backend. Nothing here waits for the device.
#pragma once

#include "base/operators.hpp"
#include "check/check.hpp"
#include "cuda/decision.hpp"
#include "strobe/attention.hpp"

namespace strobe::api {

inline bool on_cuda(const Execution& execution) { return execution.device.kind == DeviceKind::kCuda; }

/// The device of the call. @throws Error naming what is missing.
const CudaDevice& cuda_device(const Execution& execution);

/// Checks, plans and runs; a call like one of the thread's last is neither checked nor planned again.
void forward_on_cuda(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution);
void plan_and_run_on_cuda(const check::Checked& checked, const Execution& execution);
/// Loads the decision's kernels, compiling them if need be.
void prepare_on_cuda(const cuda::CudaDecision& decision, const Execution& execution);
void run_on_cuda(const check::Checked& checked, const cuda::CudaDecision& decision, const Execution& execution);

void append_on_cuda(const check::Checked& checked, const Execution& execution);
void merge_on_cuda(const MergeProblem& problem, const Execution& execution);
void softmax_on_cuda(const SoftmaxProblem& problem, const Execution& execution);
void softmax_backward_on_cuda(const SoftmaxProblem& problem, const Execution& execution);

}  // namespace strobe::api
