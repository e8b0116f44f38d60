// What the host hands to the backward kernels. Built-in types only: read by host and kernels.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm80 {

struct BackwardParams {
  AttentionParams attention;
  RowsView grad_output, grad_query, grad_key, grad_value;  // no data: not wanted
  ScoresView grad_lse;                                     // as lse; no data: not given
  VectorView grad_sink;                                    // float32 [h]; no data: not wanted
  ScoresView grad_bias;                                    // only bias.cuh looks at it
  int bias_batches, bias_heads, bias_rows, bias_keys;      // the bias's shape; packed: rows and keys are upper bounds

  // Workspace. Query tiles of all sequences have numbers ("slots"): dense, b * tiles + tile; packed, see query_slot.
  float* facts;       // [query_heads, slots, fact_floats]: LSE * lse_unit, +inf for rows that see nothing; delta; flag
  float* sums;        // [query_heads, slots, query_tile * built head_dim]: dQ, in the order of the warps' registers
  int* turns;         // [query_heads, slots, turn_parts]: how many key blocks have added to dQ. Null: in any order
  float* sink_parts;  // [query_heads, slots]; null: not wanted
  int* items_taken;   // by the thread blocks of kernels that stay on their multiprocessors; null for others

  float lse_unit;  // log2(e): kernels work in powers of two
  int query_tile, key_block;
  int fact_floats;    // of a slot
  int turn_parts;     // of dQ of a slot, which are added apart
  int slots, tiles;   // in all; of one sequence (dense)
  int blocks;         // key blocks of a sequence; packed: of all sequences, an upper bound
  int heads;          // KV heads that have blocks of their own: batch * kv_heads; packed: kv_heads
  HeadGroups groups;  // KV heads whose blocks run side by side
};

}  // namespace strobe::cuda::sm80
