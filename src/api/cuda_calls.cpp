// See cuda_calls.hpp.
#include "api/cuda_calls.hpp"

#include "cuda/cuda.hpp"
#include "plan/plan.hpp"

namespace strobe::api {
namespace {

cuda::Stream stream_of(const Execution& execution) {
  return {.device = execution.device.index, .handle = execution.stream};
}

}  // namespace

const CudaDevice& cuda_device(const Execution& execution) { return cuda::device(execution.device.index); }

void plan_and_run_on_cuda(const check::Checked& checked, const Execution& execution) {
  const plan::CudaChoice choice = plan::choose(checked.problem, cuda_device(execution));
  run_on_cuda(checked, choice.decision, execution);
}

void prepare_on_cuda(const cuda::CudaDecision& decision, const Execution& execution) {
  cuda::prepare(decision, stream_of(execution));
}

void run_on_cuda(const check::Checked& checked, const cuda::CudaDecision& decision, const Execution& execution) {
  check::workspace(execution, decision.workspace_bytes);
  cuda::run(checked.problem, checked.buffers, decision, stream_of(execution), execution.workspace);
}

void append_on_cuda(const check::Checked& checked, const Execution& execution) {
  cuda::append(checked.problem, checked.buffers, stream_of(execution));
}

void merge_on_cuda(const MergeProblem& problem, const Execution& execution) {
  cuda::merge(problem, stream_of(execution));
}

void softmax_on_cuda(const SoftmaxProblem& problem, const Execution& execution) {
  cuda::softmax(problem, stream_of(execution));
}

void softmax_backward_on_cuda(const SoftmaxProblem& problem, const Execution& execution) {
  cuda::softmax_backward(problem, stream_of(execution));
}

}  // namespace strobe::api
