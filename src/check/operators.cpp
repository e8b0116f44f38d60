// The rules of the operators beside attention: merge, softmax; and of how to run: device and workspace.
#include <string>

#include "check/overlap.hpp"
#include "check/rules.hpp"

namespace strobe::check {
namespace {

constexpr std::size_t kCpuAlignment = 64, kCudaAlignment = 256;

/// Rank 1 to 5, a float type, any strides.
void expect_softmax_operand(const char* argument, const Tensor& tensor) {
  if (tensor.rank < 1 || tensor.rank > kMaxRank) refuse(argument, tensor, "a tensor of 1 to 5 axes");
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] < 0) refuse(argument, tensor, "a shape without negative sizes");
  }
  expect_countable(argument, tensor);
  expect_type(argument, tensor, {kWideFloats});
  expect_layout(argument, tensor, Innermost::kAny);
  expect_memory(argument, tensor, Data::kRequired);
}

void expect_same_shape(const char* argument, const Tensor& tensor, const char* other_argument, const Tensor& other) {
  bool same = tensor.rank == other.rank;
  for (int axis = 0; same && axis < tensor.rank; ++axis) same = tensor.shape[axis] == other.shape[axis];
  if (!same) refuse(argument, tensor, std::string("of the shape of ") + other_argument + ", " + describe(other));
}

int axis_from_front(const Tensor& tensor, int axis) {
  if (axis < -tensor.rank || axis >= tensor.rank) {
    refuse("axis", std::to_string(axis),
           "from " + std::to_string(-tensor.rank) + " to " + std::to_string(tensor.rank - 1));
  }
  return axis < 0 ? axis + tensor.rank : axis;
}

}  // namespace

void workspace(const Execution& execution, std::size_t needed) {
  if (execution.workspace == nullptr || needed == 0) return;
  const bool cuda = execution.device.kind == DeviceKind::kCuda;
  if (reinterpret_cast<std::uintptr_t>(execution.workspace) % (cuda ? kCudaAlignment : kCpuAlignment) != 0) {
    refuse("workspace", "a misaligned pointer", cuda ? "256-byte aligned" : "64-byte aligned");
  }
  if (execution.workspace_bytes < needed) {
    refuse("workspace_bytes", std::to_string(execution.workspace_bytes), "at least " + std::to_string(needed));
  }
}

void device(const Execution& execution) {
  const Device device = execution.device;
  if (device.kind != DeviceKind::kCpu && device.kind != DeviceKind::kCuda) {
    refuse("device", "of kind " + std::to_string(int(device.kind)), "a CPU (0) or a CUDA device (1)");
  }
  if (device.index < 0) refuse("device", "of index " + std::to_string(device.index), "of an index from 0");
}

void merge(const Tensor& outputs, const Tensor& lses, const ForwardOutputs& merged) {
  const Types types{kWideFloats};
  const Data data = Data::kRequired;
  const bool packed = outputs.rank == 4;
  if (packed) {
    expect_input("outputs", outputs, types,
                 {positive("splits"), any_size("total_queries"), positive("query_heads"), positive("value_dim")}, data);
  } else {
    expect_input("outputs", outputs, types,
                 {positive("splits"), any_size("batch"), any_size("query_length"), positive("query_heads"),
                  positive("value_dim")},
                 data);
  }
  expect_countable("outputs", outputs);
  const std::int64_t* size = outputs.shape;
  if (packed) {
    const Axis rows{"total_queries", size[1]}, heads{"query_heads", size[2]};
    expect_input("lses", lses, kFloat32, {{"splits", size[0]}, heads, rows}, data);
    expect_output("output", merged.output, types, {rows, heads, {"value_dim", size[3]}}, data);
    if (merged.lse.given()) expect_output("lse", merged.lse, kFloat32, {heads, rows}, data);
  } else {
    const Axis batch{"batch", size[1]}, rows{"query_length", size[2]}, heads{"query_heads", size[3]};
    expect_input("lses", lses, kFloat32, {{"splits", size[0]}, batch, heads, rows}, data);
    expect_output("output", merged.output, types, {batch, rows, heads, {"value_dim", size[4]}}, data);
    if (merged.lse.given()) expect_output("lse", merged.lse, kFloat32, {batch, heads, rows}, data);
  }
  expect_separate({{"output", merged.output}, {"lse", merged.lse}}, {{"outputs", outputs}, {"lses", lses}});
}

int softmax(const Tensor& input, const Tensor& output, int axis) {
  expect_softmax_operand("input", input);
  expect_softmax_operand("output", output);
  expect_same_shape("output", output, "input", input);
  expect_distinct_elements("output", output);
  expect_separate({{"output", output}}, {{"input", input}});
  return axis_from_front(input, axis);
}

int softmax_backward(const Tensor& output, const Tensor& grad_output, const Tensor& grad_input, int axis) {
  expect_softmax_operand("output", output);
  expect_softmax_operand("grad_output", grad_output);
  expect_softmax_operand("grad_input", grad_input);
  expect_same_shape("grad_output", grad_output, "output", output);
  expect_same_shape("grad_input", grad_input, "output", output);
  expect_distinct_elements("grad_input", grad_input);
  expect_separate({{"grad_input", grad_input}}, {{"output", output}, {"grad_output", grad_output}});
  return axis_from_front(output, axis);
}

}  // namespace strobe::check
