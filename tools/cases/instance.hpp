// The tensors of a case, filled from its seed, in memory of their own.
#pragma once

#include <deque>

#include "cases/case.hpp"
#include "cases/storage.hpp"
#include "check/check.hpp"

namespace strobe::cases {

struct Instance {
  Case description;
  Attention attention;
  ForwardOutputs outputs;   // forward
  BackwardInputs upstream;  // backward
  Gradients gradients;      // backward
  std::deque<Storage> inputs, results;
  /// The library's own reading of the tensors above.
  check::Checked checked;

  Instance() = default;
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;
};

/// @throws Error if the library's checks refuse the case.
std::unique_ptr<Instance> build(const Case& description);

/// Puts poison back into the results, and the cache as it was before the call.
void reset(Instance& instance);

}  // namespace strobe::cases
