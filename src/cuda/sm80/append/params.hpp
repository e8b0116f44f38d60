// What the host hands to the append kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

/// Threads of a block, shared out among tokens, heads and steps along a row.
constexpr int kAppendThreads = 256;

/// Rows of one kind, [token, head, dim], and how blocks share them: a thread takes one step of one token, for every
/// 2^slot_bits-th head. A token is a new position of a sequence, or a query.
struct RowShare {
  long long tokens;
  int heads;
  int pairs;      // rotated pairs of a row: its first 2 * pairs elements
  int steps;      // a step rotates `vector` pairs, or moves `vector` elements
  int vector;     // elements at a time: 16 bytes, or 1
  int lane_bits;  // steps side by side
  int slot_bits;  // heads side by side
  int first_block;
};

enum RowKind : int { kNewKeys = 0, kNewValues = 1, kQueries = 2, kRowKinds = 3 };

struct AppendParams {
  AttentionParams attention;  // new_length counts the new rows
  RowsView new_key, new_value;
  RowsView rotated_query;  // as query; no data: queries stay
  RowShare shares[kRowKinds];

  VectorView cosine, sine;  // [position, pair]
  Element table_type;
  bool table_vectors;  // rows of the tables can be read 16 bytes at a time
  int positions;       // rows of the tables
  bool halves;         // pairs are (0, n/2), (1, n/2 + 1), ...; else (0, 1), (2, 3), ...
  bool turns_by_row;   // query i turns by p_i; else by the number of cached keys
};

}  // namespace strobe::cuda::sm80
