// What the host hands to the merge kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

constexpr int kMergeThreads = 128;
/// Parts are summed up in so many classes, part p in class p % kMergeClasses, each class by its own threads where there
/// are many parts. The classes, not the threads, fix the order of additions.
constexpr int kMergeClasses = 4;

struct MergeParams {
  RowsView parts, output;                  // [b, i, h, dim]; a part is one of `splits` such tensors
  ScoresView part_lses, lse;               // float32 [b, h, i]; lse without data: not wanted
  long long part_stride, part_lse_stride;  // elements between parts
  int splits, batch, rows, heads, value_dim;
  int vector;     // elements at a time: 16 bytes of the parts, or 1
  int lane_bits;  // 2^lane_bits threads of a warp take the dimensions of a row
};

}  // namespace strobe::cuda::sm80
