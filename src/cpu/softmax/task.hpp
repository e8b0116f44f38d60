// What the softmax driver hands to an instruction set's unit. Plain structs only.
#pragma once

#include "cpu/units.hpp"
#include "strobe/types.hpp"

namespace strobe::cpu {

/// The most neighbouring rows that one task may have.
inline constexpr int kSoftmaxColumns = 256;

/// One operand of a softmax: element j of row r lies at data + (j * stride + r) elements.
struct SoftmaxOperand {
  char* data;
  DataType dtype;
  std::int64_t stride;
};

/// `columns` neighbouring rows of `length` elements each.
struct SoftmaxTask {
  SoftmaxOperand input;        // backward: the forward pass's output
  SoftmaxOperand grad_output;  // backward only
  SoftmaxOperand output;       // backward: grad_input
  std::int64_t length;
  int columns;
};

struct SoftmaxUnit {
  void (*forward)(const SoftmaxTask& task);
  void (*backward)(const SoftmaxTask& task);
};

STROBE_DECLARE_UNITS(SoftmaxUnit, softmax_unit)

}  // namespace strobe::cpu
