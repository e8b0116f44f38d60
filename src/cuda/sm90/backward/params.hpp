// What the host hands to the Hopper backward kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/sm80/backward/params.hpp"

namespace strobe::cuda::sm90 {

struct BackwardParams {
  TensorMap query, key, value, grad_output;  // [dims, rows, heads, batches]
  sm80::BackwardParams common;  // what `prepare` reads; sums of dQ are in the order of this kernel's registers
  int items;                    // blocks of keys of all heads
};

/// The same for kernels with options.
struct BackwardOptionParams : BackwardParams {
  // The smallest and the largest document of every kWarpgroupRows queries and of every block of keys, where documents
  // are given (sm90/forward/documents.cuh).
  const int *query_documents, *key_documents;
  int query_slots, key_slots;  // of a sequence, where it is not packed
};

}  // namespace strobe::cuda::sm90
