// The C++ front desk: check, plan, find a workspace, run. Decides nothing itself.
#include "strobe/attention.hpp"

#include <string>

#include "api/executors.hpp"
#include "api/workspace.hpp"
#include "check/check.hpp"
#include "cpu/cpu.hpp"
#include "plan/plan.hpp"

namespace strobe {
namespace {

using api::executor_of;

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
  Executor& executor = executor_of(execution);
  const plan::Choice choice = plan::choose(checked.problem, device_for(executor));
  run(checked, choice.decision, execution, executor);
}

}  // namespace

void forward(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) {
  plan_and_run(check::forward(attention, outputs, check::Data::kRequired), execution);
}

void backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
              const Execution& execution) {
  plan_and_run(check::backward(attention, inputs, gradients, check::Data::kRequired), execution);
}

void append(const Attention& attention, const Execution& execution) {
  const check::Checked checked = check::append(attention);
  cpu::append(checked.problem, checked.buffers, executor_of(execution));
}

struct Plan::Contents {
  Problem problem;
  CpuDevice device;
  plan::Choice choice;
};

namespace {

std::shared_ptr<const Plan::Contents> plan_contents(const Problem& problem, Executor* executor) {
  const CpuDevice device = device_for(executor_of({.executor = executor}));
  return std::make_shared<const Plan::Contents>(
      Plan::Contents{.problem = problem, .device = device, .choice = plan::choose(problem, device)});
}

void run_planned(const Plan::Contents& contents, const check::Checked& checked, const Execution& execution) {
  if (!(checked.problem == contents.problem)) {
    throw Error(ErrorCode::kInvalidArgument, "attention", "another problem than the planned one",
                "equal to the planned one in shapes, types, options and the tensors given; make a plan for each "
                "problem, or call strobe::forward or strobe::backward, which plan by themselves");
  }
  Executor& executor = executor_of(execution);
  const Decision& decision = contents.choice.decision;
  if (executor.concurrency() > decision.workers) {
    throw Error(ErrorCode::kInvalidArgument, "execution.executor",
                "one of concurrency " + std::to_string(executor.concurrency()),
                "of at most the concurrency planned for, " + std::to_string(decision.workers));
  }
  run(checked, decision, execution, executor);
}

}  // namespace

Plan plan_forward(const Attention& attention, const ForwardOutputs& outputs, Executor* executor) {
  Plan plan;
  plan.contents_ = plan_contents(check::forward(attention, outputs, check::Data::kIgnored).problem, executor);
  return plan;
}

Plan plan_backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
                   Executor* executor) {
  Plan plan;
  plan.contents_ =
      plan_contents(check::backward(attention, inputs, gradients, check::Data::kIgnored).problem, executor);
  return plan;
}

const char* Plan::kernel() const { return contents_->choice.kernel->name; }
const char* Plan::why() const { return contents_->choice.why; }
std::size_t Plan::workspace_bytes() const { return contents_->choice.decision.workspace_bytes(); }
std::int64_t Plan::split_keys() const { return contents_->choice.decision.split_keys; }
int Plan::key_block() const { return contents_->choice.decision.key_block; }
int Plan::query_tile() const { return contents_->choice.decision.query_tile; }

std::string Plan::explain() const { return plan::explain(contents_->problem, contents_->device, contents_->choice); }

void Plan::run(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution) const {
  run_planned(*contents_, check::forward(attention, outputs, check::Data::kRequired), execution);
}

void Plan::run(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
               const Execution& execution) const {
  run_planned(*contents_, check::backward(attention, inputs, gradients, check::Data::kRequired), execution);
}

}  // namespace strobe
