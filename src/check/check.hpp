// Every rule about arguments and its message, and the translation of checked arguments into a Problem and Buffers.
// All functions throw strobe::Error before anything was read through a data pointer, except the contents of small
// index tensors (offsets, lengths, page tables), which are read to be checked where they lie in the host's memory.
#pragma once

#include "base/problem.hpp"

namespace strobe::check {

struct Checked {
  Problem problem;
  Buffers buffers;
};

/// What there is behind data pointers.
enum class Data {
  kRequired,  // memory of the host: pointers must be given, index tensors are read
  kIgnored,   // planning looks at shapes only
  kOnDevice,  // memory of a device: pointers must be given and aligned, nothing is read
};

Checked forward(const Attention& attention, const ForwardOutputs& outputs, Data data);
Checked backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients, Data data);
Checked append(const Attention& attention, Data data = Data::kRequired);
/// execution.workspace may be null (the library finds memory); otherwise it must be aligned to 64 bytes (on CUDA: 256)
/// and hold `needed` bytes.
void workspace(const Execution& execution, std::size_t needed);
/// The device kind exists and its index is not negative.
void device(const Execution& execution);
// These read no contents, so they are the same wherever the tensors lie.
void merge(const Tensor& outputs, const Tensor& lses, const ForwardOutputs& merged);
/// Returns the axis counted from the front.
int softmax(const Tensor& input, const Tensor& output, int axis);
int softmax_backward(const Tensor& output, const Tensor& grad_output, const Tensor& grad_input, int axis);

}  // namespace strobe::check
