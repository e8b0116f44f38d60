// The operators beside attention: merge, softmax and its gradient.
#include "api/cuda_calls.hpp"
#include "api/executors.hpp"
#include "check/check.hpp"
#include "cpu/cpu.hpp"
#include "strobe/attention.hpp"

namespace strobe {
namespace {

using api::executor_of, api::on_cuda;

/// A tensor whose last four axes are [batch, rows, heads, dim], or the last three where `packed`.
Rows rows_of(const Tensor& tensor, bool packed) {
  const std::int64_t* strides = tensor.strides + tensor.rank - 3;
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = packed ? 0 : strides[-1],
          .row_stride = strides[0],
          .head_stride = strides[1]};
}

/// An LSE tensor whose last three axes are [batch, heads, rows], or the last two where `packed`.
Scores lses_of(const Tensor& tensor, bool packed) {
  const std::int64_t* strides = tensor.strides + tensor.rank - 2;
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = packed ? 0 : strides[-1],
          .head_stride = strides[0],
          .row_stride = strides[1]};
}

/// The axes of a tensor but one; at most four.
struct OuterAxes {
  int count = 0;
  int axes[kMaxRank - 1] = {};
};

OuterAxes outer_axes(int rank, int axis) {
  OuterAxes outer;
  for (int candidate = 0; candidate < rank; ++candidate) {
    if (candidate != axis) outer.axes[outer.count++] = candidate;
  }
  return outer;
}

SoftmaxProblem::Operand operand_of(const Tensor& tensor, const OuterAxes& outer, int axis) {
  SoftmaxProblem::Operand operand{
      .data = static_cast<char*>(tensor.data), .dtype = tensor.dtype, .stride = tensor.strides[axis]};
  for (int i = 0; i < outer.count; ++i) operand.outer_strides[i] = tensor.strides[outer.axes[i]];
  return operand;
}

SoftmaxProblem softmax_problem(const Tensor& output, const OuterAxes& outer, int axis) {
  SoftmaxProblem problem;
  for (int i = 0; i < outer.count; ++i) problem.outer_shape[i] = output.shape[outer.axes[i]];
  problem.length = output.shape[axis];
  problem.output = operand_of(output, outer, axis);
  return problem;
}

}  // namespace

void merge(const Tensor& outputs, const Tensor& lses, const ForwardOutputs& merged, const Execution& execution) {
  check::device(execution);
  check::merge(outputs, lses, merged);
  const bool packed = outputs.rank == 4;
  const std::int64_t* shape = outputs.shape + outputs.rank - 3;
  MergeProblem problem;
  problem.splits = outputs.shape[0];
  problem.batch = packed ? 1 : outputs.shape[1];
  problem.rows = shape[0];
  problem.heads = shape[1];
  problem.value_dim = shape[2];
  problem.parts = rows_of(outputs, packed);
  problem.part_lses = lses_of(lses, packed);
  problem.part_stride = outputs.strides[0];
  problem.part_lse_stride = lses.strides[0];
  problem.output = rows_of(merged.output, packed);
  if (merged.lse.given()) problem.lse = lses_of(merged.lse, packed);
  if (on_cuda(execution)) return api::merge_on_cuda(problem, execution);
  cpu::merge(problem, executor_of(execution));
}

void softmax(const Tensor& input, const Tensor& output, int axis, const Execution& execution) {
  check::device(execution);
  axis = check::softmax(input, output, axis);
  const OuterAxes outer = outer_axes(output.rank, axis);
  SoftmaxProblem problem = softmax_problem(output, outer, axis);
  problem.input = operand_of(input, outer, axis);
  if (on_cuda(execution)) return api::softmax_on_cuda(problem, execution);
  cpu::softmax(problem, executor_of(execution));
}

void softmax_backward(const Tensor& output, const Tensor& grad_output, const Tensor& grad_input, int axis,
                      const Execution& execution) {
  check::device(execution);
  axis = check::softmax_backward(output, grad_output, grad_input, axis);
  const OuterAxes outer = outer_axes(output.rank, axis);
  SoftmaxProblem problem = softmax_problem(output, outer, axis);
  problem.grad_output = operand_of(grad_output, outer, axis);
  problem.grad_input = operand_of(grad_input, outer, axis);
  if (on_cuda(execution)) return api::softmax_backward_on_cuda(problem, execution);
  cpu::softmax_backward(problem, executor_of(execution));
}

}  // namespace strobe
