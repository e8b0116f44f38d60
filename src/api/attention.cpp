// The C++ front desk: check, plan, find a workspace, run, on the device that the call names. Decides nothing itself.
#include "strobe/attention.hpp"

#include <string>
#include <variant>

#include "api/cuda_calls.hpp"
#include "api/executors.hpp"
#include "api/workspace.hpp"
#include "check/check.hpp"
#include "cpu/cpu.hpp"
#include "plan/plan.hpp"

namespace strobe {
namespace {

using api::executor_of, api::on_cuda;

/// What lies behind the data pointers of a call.
check::Data data_of(const Execution& execution) {
  check::device(execution);
  return on_cuda(execution) ? check::Data::kOnDevice : check::Data::kRequired;
}

CpuDevice device_for(const Executor& executor) {
  CpuDevice device = cpu::this_machine();
  device.threads = executor.concurrency();
  return device;
}

void run(const check::Checked& checked, const Decision& decision, const Execution& execution, Executor& executor) {
  check::workspace(execution, decision.workspace_bytes());
  const api::Workspace workspace(execution, decision.workspace_bytes());
  const auto pass = checked.problem.pass == Pass::kForward ? cpu::forward : cpu::backward;
  pass(checked.problem, checked.buffers, decision, executor, workspace.data());
}

void plan_and_run(const check::Checked& checked, const Execution& execution) {
  if (on_cuda(execution)) return api::plan_and_run_on_cuda(checked, execution);
  Executor& executor = executor_of(execution);
  const plan::Choice choice = plan::choose(checked.problem, device_for(executor));
  run(checked, choice.decision, execution, executor);
}

}  // namespace

void forward(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) {
  const check::Data data = data_of(execution);
  if (on_cuda(execution)) return api::forward_on_cuda(attention, outputs, execution);
  plan_and_run(check::forward(attention, outputs, data), execution);
}

void backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
              const Execution& execution) {
  plan_and_run(check::backward(attention, inputs, gradients, data_of(execution)), execution);
}

void append(const Attention& attention, const Execution& execution) {
  const check::Checked checked = check::append(attention, data_of(execution));
  if (on_cuda(execution)) return api::append_on_cuda(checked, execution);
  cpu::append(checked.problem, checked.buffers, executor_of(execution));
}

namespace {

struct CpuPlan {
  CpuDevice device;
  plan::Choice choice;
};

struct CudaPlan {
  CudaDevice device;
  plan::CudaChoice choice;
};

std::size_t workspace_bytes_of(const Decision& decision) { return decision.workspace_bytes(); }
std::size_t workspace_bytes_of(const cuda::CudaDecision& decision) { return decision.workspace_bytes; }

}  // namespace

struct Plan::Contents {
  Problem problem;
  Device device;
  std::variant<CpuPlan, CudaPlan> plan;
};

namespace {

std::shared_ptr<const Plan::Contents> plan_contents(const Problem& problem, const Execution& execution) {
  if (on_cuda(execution)) {
    const CudaDevice& device = api::cuda_device(execution);
    const CudaPlan plan{.device = device, .choice = plan::choose(problem, device)};
    api::prepare_on_cuda(plan.choice.decision, execution);
    return std::make_shared<const Plan::Contents>(
        Plan::Contents{.problem = problem, .device = execution.device, .plan = plan});
  }
  const CpuDevice device = device_for(executor_of(execution));
  const CpuPlan plan{.device = device, .choice = plan::choose(problem, device)};
  return std::make_shared<const Plan::Contents>(Plan::Contents{.problem = problem, .device = {}, .plan = plan});
}

void run_planned(const Plan::Contents& contents, const check::Checked& checked, const Execution& execution) {
  Problem asked = checked.problem;
  asked.regular_rows = contents.problem.regular_rows;  // a matter of the kernel, which says so if it needs them
  if (!(asked == contents.problem)) {
    throw Error(ErrorCode::kInvalidArgument, "attention", "another problem than the planned one",
                "equal to the planned one in shapes, types, options and the tensors given; make a plan for each "
                "problem, or call strobe::forward or strobe::backward, which plan by themselves");
  }
  if (const auto* cuda = std::get_if<CudaPlan>(&contents.plan)) {
    return api::run_on_cuda(checked, cuda->choice.decision, execution);
  }
  Executor& executor = executor_of(execution);
  const Decision& decision = std::get<CpuPlan>(contents.plan).choice.decision;
  if (executor.concurrency() > decision.workers) {
    throw Error(ErrorCode::kInvalidArgument, "execution.executor",
                "one of concurrency " + std::to_string(executor.concurrency()),
                "of at most the concurrency planned for, " + std::to_string(decision.workers));
  }
  run(checked, decision, execution, executor);
}

/// A plan runs on the device that it was made for; what lies behind the data pointers then.
check::Data planned_data(const Plan::Contents& contents, const Execution& execution) {
  const check::Data data = data_of(execution);
  const bool same = execution.device.kind == contents.device.kind &&
                    (!on_cuda(execution) || execution.device.index == contents.device.index);
  if (same) return data;
  const auto name = [](Device device) {
    return device.kind == DeviceKind::kCpu ? std::string("the CPU") : "CUDA device " + std::to_string(device.index);
  };
  throw Error(ErrorCode::kInvalidArgument, "execution.device", name(execution.device),
              "the planned one, " + name(contents.device));
}

}  // namespace

Plan plan_forward(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) {
  check::device(execution);
  Plan plan;
  plan.contents_ = plan_contents(check::forward(attention, outputs, check::Data::kIgnored).problem, execution);
  return plan;
}

Plan plan_backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
                   const Execution& execution) {
  check::device(execution);
  Plan plan;
  plan.contents_ =
      plan_contents(check::backward(attention, inputs, gradients, check::Data::kIgnored).problem, execution);
  return plan;
}

const char* Plan::kernel() const {
  return std::visit([](const auto& plan) { return plan.choice.kernel->name; }, contents_->plan);
}
const char* Plan::why() const {
  return std::visit([](const auto& plan) { return plan.choice.why; }, contents_->plan);
}
std::size_t Plan::workspace_bytes() const {
  return std::visit([](const auto& plan) { return workspace_bytes_of(plan.choice.decision); }, contents_->plan);
}
std::int64_t Plan::split_keys() const {
  return std::visit([](const auto& plan) { return plan.choice.decision.split_keys; }, contents_->plan);
}
int Plan::key_block() const {
  return std::visit([](const auto& plan) { return plan.choice.decision.key_block; }, contents_->plan);
}
int Plan::query_tile() const {
  return std::visit([](const auto& plan) { return plan.choice.decision.query_tile; }, contents_->plan);
}

std::string Plan::explain() const {
  const Problem& problem = contents_->problem;
  return std::visit([&](const auto& plan) { return plan::explain(problem, plan.device, plan.choice); },
                    contents_->plan);
}

void Plan::run(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) const {
  run_planned(*contents_, check::forward(attention, outputs, planned_data(*contents_, execution)), execution);
}

void Plan::run(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
               const Execution& execution) const {
  run_planned(*contents_, check::backward(attention, inputs, gradients, planned_data(*contents_, execution)),
              execution);
}

}  // namespace strobe
