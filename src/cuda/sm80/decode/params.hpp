// What the host hands to the decode kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"
#include "cuda/sm80/merge/params.hpp"

namespace strobe::cuda::sm80 {

/// Row n of a KV head (query i of head g of the group is row i * group + g).
struct DecodeRow {
  int query, head_of_group;
};

/// Keys or values that lie in a tensor of their own, strides in bytes.
struct PlainRows {
  const char* data;
  long long batch_bytes, head_bytes, row_bytes;
};

struct DecodeParams {
  // What a block's first loads wait for comes first: parameters are fetched line by line, from far away.
  int split_keys;          // keys of one split
  int row_groups;          // groups of 16 query rows of a KV head
  unsigned inverse_group;  // 2^16 / attention.group, rounded up (row())
  bool plain;  // all sequences have all keys of a tensor, whose rows lie in chunks, and all queries see them
  int key_length, head_dim, value_dim;
  PlainRows key, value;  // where `plain`

  AttentionParams attention;               // output and lse: of the call, or of the first part where keys are split
  long long part_stride, part_lse_stride;  // elements between parts; 0: keys are not split
  int splits;                              // of the longest sequence

  // Where the last block of a row group merges its parts.
  unsigned long long* arrivals;  // [batch, KV head, row group], holding anything; null: blocks do not merge
  unsigned long long tag;        // chance does not write it
  MergeParams merge;

  constexpr DecodeRow row(int n) const {
    const int query = int(unsigned(n) * inverse_group >> 16);
    return {query, n - query * attention.group};
  }
};

}  // namespace strobe::cuda::sm80
