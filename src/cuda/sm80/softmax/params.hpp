// What the host hands to the softmax kernels. Built-in types only: read by host and kernels.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

/// Element j of the row with indices (i0, ..., i3) lies at data + (sum i_n * strides[n] + j * stride) elements.
struct SoftmaxOperand {
  char* data;
  long long strides[4];
  long long stride;
  Element type;
};

struct SoftmaxParams {
  SoftmaxOperand input, grad_output, output;  // backward: input is the forward pass's output, output the gradient
  long long
      shape[4];    // of the axes but the softmax's, the last counting fastest; the first ones are 1 where fewer matter
  long long rows;  // their product
  long long length;  // of a row
  int row_bits;      // rows kernel: 2^row_bits threads share a row
  long long tiles;   // columns kernel: tiles of neighbouring rows that the last axis is cut into
};

/// The rows kernel: packs (16 bytes, or one element of any type) that a thread holds in registers of each operand that
/// it reads; threads of a block whose rows are shared by no more than a warp each; the most that share a row.
constexpr int kSoftmaxHeld = 8, kSoftmaxBackwardHeld = 4;
constexpr int kSoftmaxThreads = 128, kSoftmaxMostThreads = 512;

/// The columns kernel: a block takes neighbouring rows, so many, and so many threads share each.
constexpr int kColumns = 32, kColumnThreads = 16;

/// Stands for run-time types and strides among the values of STROBE_TYPE.
constexpr int kAnyElement = -1;

}  // namespace strobe::cuda::sm80
