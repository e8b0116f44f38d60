// What the host hands to the forward kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

struct ForwardParams {
  AttentionParams attention;
  int tiles;            // query tiles of a sequence; packed: of all sequences, an upper bound
  int heads;            // heads that have tiles of their own: batch * query_heads; packed: query_heads
  int heads_per_group;  // heads whose keys and values the second-level cache holds together
};

}  // namespace strobe::cuda::sm80
