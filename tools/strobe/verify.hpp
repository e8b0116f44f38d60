// Judging an output against the float64 reference by the rule of docs/options.md, section Precision.
#pragma once

#include "base/problem.hpp"

namespace strobe::tools {

struct Verdict {
  double output_error = 0;    // max |x - x64|
  double output_allowed = 0;  // 2 max |x_std - x64| + tiny
  double lse_error = 0, lse_allowed = 0;
  bool passed() const { return output_error <= output_allowed && lse_error <= lse_allowed; }
};

/// Reads the outputs that `buffers` view.
Verdict verify_forward(const Problem& problem, const Buffers& buffers);

}  // namespace strobe::tools
