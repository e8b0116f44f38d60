// What is asked (Problem) and where things are (Buffers): the two halves of every attention call.
// Problem holds shapes, types and options and no pointer, so that plans can be made, compared and printed without
// data. Buffers holds pointers and strides. api fills both, check judges them, plan and the backends read them.
#pragma once

#include <cstdint>

#include "strobe/attention.hpp"

namespace strobe {

enum class Pass : std::int32_t { kForward, kBackward };

/// Means "no bound" in Problem::window_left and window_right.
inline constexpr std::int64_t kUnbounded = -1;

struct Problem {
  Pass pass = Pass::kForward;
  DataType query_type = DataType::kFloat32;
  DataType key_type = DataType::kFloat32;  // value has the same type
  DataType output_type = DataType::kFloat32;

  std::int64_t batch = 0;
  std::int64_t query_heads = 0, kv_heads = 0;
  std::int64_t head_dim = 0, value_dim = 0;
  std::int64_t query_length = 0;   // dense: per sequence; packed: total_queries, an upper bound
  std::int64_t key_length = 0;     // dense: per sequence (a cache's capacity); packed: total_keys
  std::int64_t total_queries = 0;  // rows of query in all
  std::int64_t total_keys = 0;
  std::int64_t page_size = 0;   // 0: not paged
  std::int64_t new_length = 0;  // keys appended to each sequence
  std::int64_t rotary_dim = 0, rotary_positions = 0;

  float scale = 1.0f;
  float softcap = 0.0f;
  float dropout = 0.0f;
  std::uint64_t dropout_seed = 0, dropout_offset = 0;
  std::int64_t window_left = kUnbounded, window_right = kUnbounded;
  std::int64_t prefix_length = 0;
  std::int64_t block_rows = 0, block_columns = 0;
  std::int32_t splits = 0;
  Alignment alignment = Alignment::kBottomRight;
  RotaryStyle rotary_style = RotaryStyle::kInterleaved;

  bool packed_queries = false, packed_keys = false;
  bool regular_rows = true;  // of query, key, value and output (backward: its gradient), where a copy engine finds them
  bool causal = false;
  bool batch_invariant = false;
  bool deterministic = true;

  // Which optional tensors take part.
  bool has_bias = false, has_alibi = false, has_sink = false;
  bool has_mask = false, has_block_mask = false, has_documents = false;
  bool has_query_lengths = false, has_key_lengths = false, has_prefix_lengths = false;
  bool has_cache_index = false;
  bool has_descale = false;
  bool has_lse = false;                                                             // forward: written; backward: read
  bool has_grad_lse = false;                                                        // backward
  bool wants_grad_query = false, wants_grad_key = false, wants_grad_value = false;  // backward
  bool wants_grad_bias = false, wants_grad_sink = false;
  DataType grad_bias_type = DataType::kFloat32;
  bool bias_broadcasts[4] = {};  // the axes [batch, heads, query, key] along which the bias has size 1

  bool operator==(const Problem&) const = default;

  std::int64_t group() const { return kv_heads == 0 ? 1 : query_heads / kv_heads; }
};

/// Rows of a [.., length, heads, dim] tensor: element (b, i, h, d) lies at
/// data + (b * batch_stride + i * row_stride + h * head_stride + d) * size_of(dtype).
/// Packed tensors have batch_stride 0 and rows counted from the start of the whole tensor.
/// A paged cache has batch_stride between pages and row_stride within a page.
struct Rows {
  char* data = nullptr;
  DataType dtype = DataType::kFloat32;
  std::int64_t batch_stride = 0, row_stride = 0, head_stride = 0;

  bool operator==(const Rows&) const = default;
};

/// A [batch, heads, i, j] tensor; broadcast axes have stride 0.
struct Scores {
  char* data = nullptr;
  DataType dtype = DataType::kFloat32;
  std::int64_t batch_stride = 0, head_stride = 0, row_stride = 0, column_stride = 0;

  bool operator==(const Scores&) const = default;
};

/// A [batch, n] or [n] tensor of small facts; broadcast axes have stride 0.
struct Vectors {
  char* data = nullptr;
  DataType dtype = DataType::kFloat32;
  std::int64_t batch_stride = 0, stride = 0;

  bool operator==(const Vectors&) const = default;
};

struct Buffers {
  Rows query, key, value, output;
  Rows new_key, new_value;
  Rows grad_output, grad_query, grad_key, grad_value;
  Scores bias, mask, block_mask, grad_bias;
  Scores lse, grad_lse;     // [b, h, i]; packed: batch_stride 0 and i counted over all queries; column_stride unused
  Vectors alibi_slopes;     // [b, h]
  Vectors sink, grad_sink;  // [h]
  Vectors query_descale, key_descale, value_descale;  // [b, kv head]
  Vectors rotary_cos, rotary_sin;                     // [position, pair]
  Vectors query_documents, key_documents;             // [b, i]; packed: batch_stride 0, i counted over all rows
  Vectors page_table;                                 // [b, page]
  Vectors query_offsets, key_offsets;                 // [b], int32
  Vectors query_lengths, key_lengths, prefix_lengths, cache_batch_index;  // [b], int32

  bool operator==(const Buffers&) const = default;
};

}  // namespace strobe
