// The operators beside attention, as api hands them to a backend: what attention's Problem and Buffers are, in one.
#pragma once

#include "base/problem.hpp"

namespace strobe {

/// Partial results over disjoint keys -> one result. outputs: [splits, batch, rows, heads, dim] as `parts` rows with
/// a stride between splits; see strobe::merge.
struct MergeProblem {
  std::int64_t splits = 0, batch = 0, rows = 0, heads = 0, value_dim = 0;
  Rows parts, output;
  Scores part_lses, lse;                              // lse.data may be null
  std::int64_t part_stride = 0, part_lse_stride = 0;  // elements between splits
};

/// Softmax over one axis: `outer` rows whose addresses come from up to four outer axes.
struct SoftmaxProblem {
  struct Operand {
    char* data = nullptr;
    DataType dtype = DataType::kFloat32;
    std::int64_t outer_strides[4] = {};
    std::int64_t stride = 1;  // along the softmax axis
  };
  std::int64_t outer_shape[4] = {1, 1, 1, 1};
  std::int64_t length = 0;
  Operand input, output;            // forward
  Operand grad_output, grad_input;  // backward: output is read, grad_input written
};

}  // namespace strobe
