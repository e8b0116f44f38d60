// merge, softmax, execution options and the workspace.
#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Operators, Splits) {
  DenseCall call;
  for (int splits : {-1, 1 << 20}) {
    call.attention.splits = splits;
    EXPECT_REFUSED_ALWAYS(call, "splits", "from 0");
  }
}

TEST(Operators, Workspace) {
  alignas(64) char memory[256];
  EXPECT_NO_THROW(workspace({}, 1000));
  EXPECT_NO_THROW(workspace({.workspace = memory, .workspace_bytes = 256}, 256));
  EXPECT_TRUE(
      refuses([&] { workspace({.workspace = memory, .workspace_bytes = 255}, 256); }, "workspace_bytes", "256"));
  EXPECT_TRUE(
      refuses([&] { workspace({.workspace = memory + 4, .workspace_bytes = 252}, 64); }, "workspace", "aligned"));
}

TEST(Operators, Merge) {
  Memory memory;
  const Tensor outputs = memory.floats({3, 2, 5, 4, 8}), lses = memory.floats({3, 2, 4, 5});
  ForwardOutputs merged{.output = memory.floats({2, 5, 4, 8}), .lse = memory.floats({2, 4, 5})};
  EXPECT_NO_THROW(check::merge(outputs, lses, merged));
  merged.lse = {};
  EXPECT_NO_THROW(check::merge(outputs, lses, merged));
  EXPECT_NO_THROW(
      check::merge(memory.floats({3, 10, 4, 8}), memory.floats({3, 4, 10}), {memory.floats({10, 4, 8}), {}}));
  const auto refused = [&](const Tensor& parts, const Tensor& part_lses, const ForwardOutputs& into,
                           const char* argument, const char* demand) {
    return refuses([&] { check::merge(parts, part_lses, into); }, argument, demand);
  };
  EXPECT_TRUE(refused({}, lses, merged, "outputs", "splits"));
  EXPECT_TRUE(refused(outputs, {}, merged, "lses", "splits 3"));
  EXPECT_TRUE(refused(outputs, memory.floats({2, 2, 4, 5}), merged, "lses", "splits 3"));
  EXPECT_TRUE(refused(outputs, memory.floats({3, 2, 4, 5}, DataType::kFloat16), merged, "lses", "float32"));
  EXPECT_TRUE(refused(outputs, lses, {}, "output", "value_dim 8"));
  EXPECT_TRUE(refused(outputs, lses, {memory.floats({2, 5, 4, 8}), memory.floats({2, 5, 4})}, "lse", "query_heads 4"));
  merged.output.data = outputs.data;
  EXPECT_TRUE(refused(outputs, lses, merged, "output", "of its own"));
}

TEST(Operators, Softmax) {
  Memory memory;
  const Tensor input = memory.floats({2, 3, 4}), output = memory.floats({2, 3, 4});
  EXPECT_EQ(check::softmax(input, output, -1), 2);
  EXPECT_EQ(check::softmax(input, output, 0), 0);
  EXPECT_EQ(check::softmax(input, output, -3), 0);
  const auto refused = [&](const Tensor& from, const Tensor& to, int axis, const char* argument, const char* demand) {
    return refuses([&] { check::softmax(from, to, axis); }, argument, demand);
  };
  EXPECT_TRUE(refused(input, output, 3, "axis", "from -3 to 2"));
  EXPECT_TRUE(refused(input, output, -4, "axis", "from -3 to 2"));
  EXPECT_TRUE(refused({}, output, 0, "input", "1 to 5 axes"));
  EXPECT_TRUE(refused(input, memory.floats({2, 3, 5}), 0, "output", "shape of input"));
  EXPECT_TRUE(refused(memory.integer_array({2, 3, 4}), output, 0, "input", "float32"));
  EXPECT_TRUE(refused(input, input, 0, "output", "of its own"));
  Tensor expanded = output;
  expanded.strides[0] = 0;
  EXPECT_TRUE(refused(input, expanded, 0, "output", "no two elements"));
  EXPECT_NO_THROW(check::softmax(expanded, input, 0));
  Tensor hostile = input;
  hostile.rank = 77;
  EXPECT_TRUE(refused(hostile, output, 0, "input", "1 to 5 axes"));
  hostile = input;
  hostile.shape[0] = hostile.shape[1] = std::int64_t(1) << 62;
  EXPECT_TRUE(refused(hostile, output, 0, "input", "2^44"));
}

TEST(Operators, SoftmaxBackward) {
  Memory memory;
  const Tensor output = memory.floats({2, 3}), grad_output = memory.floats({2, 3}), grad_input = memory.floats({2, 3});
  EXPECT_EQ(check::softmax_backward(output, grad_output, grad_input, -2), 0);
  EXPECT_TRUE(
      refuses([&] { check::softmax_backward(output, grad_output, grad_output, 0); }, "grad_input", "of its own"));
  EXPECT_TRUE(refuses(
      [&] {
        check::softmax_backward(output, memory.floats({3, 2}), grad_input, 0);
      },
      "grad_output", "shape of output"));
  EXPECT_TRUE(refuses([&] { check::softmax_backward(output, grad_output, {}, 0); }, "grad_input", "1 to 5 axes"));
}

}  // namespace
}  // namespace strobe::check
