// What the backward driver hands to an instruction-set unit. Plain data; the driver has resolved the sequence, the
// heads and the workspace, the unit only computes.
#pragma once

#include <cstdint>

#include "cpu/task.hpp"
#include "cpu/units.hpp"
#include "strobe/types.hpp"

namespace strobe::cpu {

/// Rows of one sequence: element (head, row, d) lies at data + (head * head_stride + row * row_stride + d) elements.
/// Heads count from the first one of the task. No data: not given, or not wanted.
struct TaskRows {
  char* data;
  DataType type;
  std::int64_t row_stride, head_stride;
};

/// A (head, query, key) array of one sequence, strides in elements; broadcast axes have stride 0.
struct TaskScores {
  char* data;
  DataType type;
  std::int64_t head_stride, row_stride, column_stride;
};

/// Tile sizes and where a worker's buffers lie in its scratch memory, all in floats. Where factors are split,
/// Q and dO have `pieces` times the room, and K, K^T and V^T lie in half as much as that.
struct BackwardLayout {
  int key_block, query_tile;
  int query_rows;                               // of a span: whole tiles, staged together
  int pieces;                                   // that stand for a factor, as their sum
  int head_stride, value_stride, score_stride;  // between rows of the buffers below
  std::int64_t key;                             // K [key_block, head_stride]
  std::int64_t key_panels, value_panels;        // K^T and V^T [key_block / panel, dim, panel]
  std::int64_t grad_key, grad_value;            // dK, dV [key_block, head_stride | value_stride]
  std::int64_t query, grad_query;               // Q, dQ [query_rows, head_stride]
  std::int64_t grad_output;                     // dO [query_rows, value_stride]
  std::int64_t probabilities, grad_scores;      // P, dS [query_tile, score_stride]
  std::int64_t edits, dropout;                  // what is added to S, what multiplies P [query_tile, score_stride]
  std::int64_t score_pieces;                    // P and dS split, pairs of queries, and dS again, pairs of keys
  std::int64_t lse, delta;                      // [query_rows]
  std::int64_t floats;                          // in all
};

/// Floats that keep rows off the same cache set.
inline constexpr int kStridePadding = 16;

/// Query tiles of a span, at most.
inline constexpr int kMaxQueryTiles = 64;

/// The gradients that come from one rectangle of scores, for all query heads of one KV head.
struct BackwardTask {
  std::int64_t key_begin, key_end, query_begin, query_end;
  std::int64_t queries, keys;   // in use
  std::int64_t position_shift;  // p_i = i + position_shift
  std::int64_t left, right;     // p_i - left <= j <= p_i + right, large where there is no bound
  std::int64_t prefix;          // keys before this are exempt from left and right
  int head_dim, value_dim, group;
  float scale, softcap;

  TaskRows query, key, value, grad_output;
  TaskRows grad_query, grad_key, grad_value;  // float32, added to
  const float* lse;                           // [group, queries], +inf for a row that sees nothing
  const float* delta;                         // [group, queries]
  std::int64_t row_facts_stride;              // between heads of the two above

  TaskScores bias, mask, block_mask;
  TaskScores grad_bias;  // float32, added to
  std::int64_t block_rows, block_columns;
  const float* slopes;  // ALiBi
  std::int64_t slope_stride;
  const std::int32_t *query_documents, *key_documents;
  std::int64_t query_document_stride, key_document_stride;
  bool drops;
  std::uint32_t keep_threshold;
  float keep_factor;
  std::uint64_t dropout_seed, dropout_stream;  // of the first head

  const BackwardLayout* layout;
  float* scratch;
};

/// Facts about the rows of one query head: LSE, delta, and the sink's share of the gradient.
struct RowFactsTask {
  std::int64_t queries;
  int value_dim;
  TaskRows output, grad_output;
  const float *lse, *grad_lse;  // grad_lse may be null
  std::int64_t lse_stride, grad_lse_stride;
  const float* sink;  // null: none
  float *lse_out, *delta_out;
  float* grad_sink;  // null: not wanted
};

/// Rounds float32 rows to another type.
struct RoundRowsTask {
  std::int64_t rows;
  int dim;
  TaskRows from, to;
};

struct BackwardUnit {
  int lanes, panel, tile_rows;       // floats in a vector; keys and query rows in a register tile
  int (*query_tile)(DataType type);  // query rows of a tile, at most
  int (*pieces)(DataType type);      // of a factor
  void (*row_facts)(const RowFactsTask& task);
  void (*gradients)(const BackwardTask& task);
  void (*round_rows)(const RoundRowsTask& task);
};

STROBE_DECLARE_UNITS(BackwardUnit, backward_unit)

}  // namespace strobe::cpu
