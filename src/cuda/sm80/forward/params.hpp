// What the host hands to the forward kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

/// n / d = n * factor >> shift, for 0 <= n < 2^31.
struct Divisor {
  unsigned factor;
  int shift;
};

struct ForwardParams {
  AttentionParams attention;
  int tiles;       // query tiles of a sequence; packed: of all sequences, an upper bound
  int heads;       // heads that have tiles of their own: batch * query_heads; packed: query_heads
  int group_bits;  // 2^group_bits heads run side by side, whose keys and values the second-level cache holds
  Divisor by_query_heads, by_group;
};

}  // namespace strobe::cuda::sm80
