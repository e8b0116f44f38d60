// Every rule about arguments and its message, and the translation of checked arguments into a Problem and Buffers.
// All functions throw strobe::Error before anything was read through a data pointer, except the contents of small
// index tensors (offsets, lengths, page tables), which are read to be checked.
#pragma once

#include "base/problem.hpp"

namespace strobe::check {

struct Checked {
  Problem problem;
  Buffers buffers;
};

/// Whether data pointers must be there: planning looks at shapes only.
enum class Data { kRequired, kIgnored };

Checked forward(const Attention& attention, const ForwardOutputs& outputs, Data data);
Checked backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients, Data data);
Checked append(const Attention& attention);
/// `workspace` may be null (the library allocates); otherwise it must be 64-byte aligned and hold `needed` bytes.
void workspace(const Execution& execution, std::size_t needed);
void merge(const Tensor& outputs, const Tensor& lses, const ForwardOutputs& merged);
/// Returns the axis counted from the front.
int softmax(const Tensor& input, const Tensor& output, int axis);
int softmax_backward(const Tensor& output, const Tensor& grad_output, const Tensor& grad_input, int axis);

}  // namespace strobe::check
