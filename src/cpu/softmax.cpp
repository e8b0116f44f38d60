// Softmax driver: cuts any axis of any tensor into tasks for the machine's best softmax unit.
#include <algorithm>

#include "cpu/cpu.hpp"
#include "cpu/softmax/task.hpp"

namespace strobe::cpu {
namespace {

constexpr std::int64_t kChunkElements = 16384;     // the least worth handing to a thread
constexpr std::int64_t kTileElements = 128 << 10;  // of neighbouring rows: what L2 holds between the two passes
constexpr double kNanosecondsPerElement = 0.3;

/// The rows of a call as a list of tasks. `lanes` is the outer axis whose neighbours are rows of one task, -1 if the
/// rows of a task are taken one by one.
struct Job {
  const SoftmaxProblem& problem;
  void (*run)(const SoftmaxTask&);
  bool is_backward;
  int lanes;
  std::int64_t columns;       // of a task
  std::int64_t column_tasks;  // along `lanes`
  std::int64_t tasks, tasks_per_chunk;
};

SoftmaxOperand place(const SoftmaxProblem::Operand& operand, const std::int64_t (&index)[4]) {
  std::int64_t offset = 0;
  for (int axis = 0; axis < 4; ++axis) offset += index[axis] * operand.outer_strides[axis];
  return {operand.data + offset * std::int64_t(size_of(operand.dtype)), operand.dtype, operand.stride};
}

void run_task(const Job& job, std::int64_t task) {
  const SoftmaxProblem& problem = job.problem;
  std::int64_t index[4] = {};
  SoftmaxTask work{};
  work.length = problem.length;
  work.columns = 1;
  if (job.lanes >= 0) {
    index[job.lanes] = task % job.column_tasks * job.columns;
    task /= job.column_tasks;
    work.columns = int(std::min(job.columns, problem.outer_shape[job.lanes] - index[job.lanes]));
  }
  for (int axis = 3; axis >= 0; --axis) {
    if (axis == job.lanes) continue;
    index[axis] = task % problem.outer_shape[axis];
    task /= problem.outer_shape[axis];
  }
  if (job.is_backward) {
    work.input = place(problem.output, index);
    work.grad_output = place(problem.grad_output, index);
    work.output = place(problem.grad_input, index);
  } else {
    work.input = place(problem.input, index);
    work.output = place(problem.output, index);
  }
  job.run(work);
}

void run_chunk(void* context, std::int64_t chunk, int) {
  const Job& job = *static_cast<const Job*>(context);
  const std::int64_t first = chunk * job.tasks_per_chunk;
  const std::int64_t last = std::min(first + job.tasks_per_chunk, job.tasks);
  for (std::int64_t task = first; task < last; ++task) run_task(job, task);
}

void run(const SoftmaxProblem& problem, bool is_backward, Executor& executor) {
  const SoftmaxUnit& unit = pick_softmax_unit(this_machine().best);
  const SoftmaxProblem::Operand* operands[3] = {&problem.input, &problem.output, &problem.output};
  if (is_backward) operands[0] = &problem.grad_output, operands[2] = &problem.grad_input;

  std::int64_t rows = 1;
  for (const std::int64_t extent : problem.outer_shape) rows *= extent;
  if (rows == 0 || problem.length == 0) return;

  Job job{problem, is_backward ? unit.backward : unit.forward, is_backward, -1, 1, 1, rows, 1};
  const bool along = std::all_of(operands, operands + 3, [](const auto* o) { return o->stride == 1; });
  for (int axis = 0; axis < 4 && !along; ++axis) {
    const auto adjacent = [axis](const auto* o) { return o->outer_strides[axis] == 1; };
    if (problem.outer_shape[axis] > 1 && std::all_of(operands, operands + 3, adjacent)) job.lanes = axis;
  }
  if (job.lanes >= 0) {
    const std::int64_t extent = problem.outer_shape[job.lanes];
    job.columns = std::clamp<std::int64_t>(kTileElements / problem.length / 64 * 64, 64, kSoftmaxColumns);
    job.column_tasks = (extent + job.columns - 1) / job.columns;
    job.tasks = rows / extent * job.column_tasks;
  }
  const std::int64_t task_elements = problem.length * job.columns;
  job.tasks_per_chunk = std::max<std::int64_t>(1, kChunkElements / task_elements);
  const std::int64_t chunks = (job.tasks + job.tasks_per_chunk - 1) / job.tasks_per_chunk;
  executor.parallel_for(chunks, kNanosecondsPerElement * double(task_elements * job.tasks_per_chunk), run_chunk, &job);
}

}  // namespace

void softmax(const SoftmaxProblem& problem, Executor& executor) { run(problem, false, executor); }
void softmax_backward(const SoftmaxProblem& problem, Executor& executor) { run(problem, true, executor); }

}  // namespace strobe::cpu
