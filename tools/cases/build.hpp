// The two steps of building an instance. Between them the library's own checks read the tensors, and the second step
// finds its rows through what they made of them.
#pragma once

#include "cases/instance.hpp"
#include "cases/random.hpp"

namespace strobe::cases {

/// Makes all tensors, poisoned, and fills the index tensors.
void describe_tensors(Instance& instance, Random& random);
/// Fills everything else. Needs instance.checked.
void fill_tensors(Instance& instance, Random& random);

}  // namespace strobe::cases
