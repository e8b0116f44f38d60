// What the host hands to the decode kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

struct DecodeParams {
  AttentionParams attention;               // output and lse: of the call, or of the first part where keys are split
  int split_keys;                          // keys of one split
  int row_groups;                          // groups of 16 query rows of a KV head
  long long part_stride, part_lse_stride;  // elements between parts; 0: keys are not split
};

}  // namespace strobe::cuda::sm80
