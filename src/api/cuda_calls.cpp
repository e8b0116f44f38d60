// See cuda_calls.hpp.
#include "api/cuda_calls.hpp"

#include <memory>

#include "check/repeat.hpp"
#include "cuda/cuda.hpp"
#include "plan/plan.hpp"

namespace strobe::api {
namespace {

cuda::Stream stream_of(const Execution& execution) {
  return {.device = execution.device.index, .handle = execution.stream};
}

/// Calls that a thread keeps: of layers that differ, each a few times.
constexpr std::size_t kKept = 4;

struct Known {
  check::CheckedForward call;
  cuda::CudaDecision decision;
  int device = -1;
};

struct LastCalls {
  Known calls[kKept];
  std::size_t last = 0;  // the one that was asked for last
};

/// Too large for a place in every thread of every program.
LastCalls& last_calls() {
  thread_local std::unique_ptr<LastCalls> kept;
  if (kept == nullptr) kept = std::make_unique<LastCalls>();
  return *kept;
}

}  // namespace

const CudaDevice& cuda_device(const Execution& execution) { return cuda::device(execution.device.index); }

void forward_on_cuda(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) {
  LastCalls& kept = last_calls();
  for (std::size_t n = 0; n < kKept; ++n) {
    const std::size_t place = (kept.last + n) % kKept;
    Known& known = kept.calls[place];
    if (known.device != execution.device.index) continue;
    const check::Checked* checked = known.call.recall(attention, outputs);
    if (checked == nullptr) continue;
    kept.last = place;
    return run_on_cuda(*checked, known.decision, execution);
  }
  const check::Checked checked = check::forward(attention, outputs, check::Data::kOnDevice);
  const plan::CudaChoice choice = plan::choose(checked.problem, cuda_device(execution));
  kept.last = (kept.last + kKept - 1) % kKept;  // the one that was not asked for longest, if they come in turn
  Known& known = kept.calls[kept.last];
  known.call.remember(attention, outputs, checked);
  known.decision = choice.decision;
  known.device = execution.device.index;
  run_on_cuda(checked, choice.decision, execution);
}

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
