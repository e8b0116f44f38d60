// Plain structs that drivers hand to instruction-set units. No functions: units share nothing with the linker.
#pragma once

#include <cstdint>

namespace strobe::cpu {

/// One sequence of a batch, resolved.
struct Sequence {
  std::int64_t batch;
  std::int64_t first_query, first_key;       // rows before this sequence in packed tensors, else 0
  std::int64_t stored_queries, stored_keys;  // rows that exist
  std::int64_t queries, keys;                // rows in use; keys counts appended ones
  std::int64_t cached_keys;                  // key_lengths[b] before appending
  std::int64_t cache_row;                    // batch index into key and value
  std::int64_t position_shift;               // p_i = i + position_shift
  std::int64_t prefix;                       // keys before this are exempt from causal and window
};

/// Keys [first, last).
struct KeyRange {
  std::int64_t first, last;
};

/// Where row j of one sequence's keys or values (of one KV head) lies, in bytes.
/// Paged: data + page_table[j / page_size] * page_stride + (j % page_size) * row_stride.
struct KeyRows {
  char* data;
  std::int64_t row_stride;
  const std::int32_t* page_table;  // null: data + j * row_stride
  std::int64_t page_size, page_stride;
};

}  // namespace strobe::cpu
