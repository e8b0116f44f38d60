// What the host hands to the Hopper backward kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/sm80/backward/params.hpp"

namespace strobe::cuda::sm90 {

struct BackwardParams {
  TensorMap query, key, value, grad_output;  // [dims, rows, heads, batches]
  sm80::BackwardParams common;  // what `prepare` reads; sums of dQ are in the order of this kernel's registers
  int items;                    // blocks of keys of all heads
};

}  // namespace strobe::cuda::sm90
