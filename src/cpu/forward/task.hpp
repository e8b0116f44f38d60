// What the forward driver hands to an instruction set's prefill or decode unit: some query rows of one (sequence, KV
// head) against a range of its keys. Plain structs only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/task.hpp"
#include "cpu/units.hpp"
#include "strobe/types.hpp"

namespace strobe::cpu {

/// "As far as there are keys", in ForwardTask::left and right.
inline constexpr std::int64_t kFar = std::int64_t(1) << 40;

/// A [head, i, j] tensor of one sequence, from the KV head's first query head on. Strides in bytes; broadcast axes have
/// stride 0.
struct ScoreRows {
  const char* data;  // null: not given
  DataType dtype;
  std::int64_t head_stride, row_stride, column_stride;
};

/// Rows are r = i * group + g: query i of head kv_head * group + g. The heads that share a KV head are thus rows of one
/// task, which serves MHA, GQA and MQA alike. Pointers are to (i = 0, g = 0) of the sequence and KV head; strides of
/// query, output and lse are in bytes.
struct ForwardTask {
  std::int64_t group;
  std::int64_t first_row, rows;
  KeyRange keys;            // of this split; the last key may be past those in use
  std::int64_t key_length;  // keys in use in the sequence; no row past them is read
  int head_dim, value_dim;

  const char* query;
  DataType query_type;
  std::int64_t query_row_stride, query_head_stride;
  KeyRows key, value;
  DataType key_type;           // of value too
  const char* packed;          // key blocks as ForwardUnit::pack laid them out; null: this task stages them itself
  std::int64_t packed_stride;  // bytes between blocks

  char* output;  // normalised over this split's keys
  DataType output_type;
  std::int64_t output_row_stride, output_head_stride;
  char* lse;  // float32; null: not wanted
  std::int64_t lse_row_stride, lse_head_stride;

  // Scores.
  float scale;        // with the descale factors of query and key
  float value_scale;  // value's descale factor
  float softcap;      // 0: none
  ScoreRows bias;
  const float* alibi_slopes;  // [g] with stride; null: none
  std::int64_t alibi_stride;  // elements
  const float* sink;          // [g] with stride; null: none, or not this split's to count
  std::int64_t sink_stride;   // elements

  // Visibility: key j < key_length is visible to query i when p_i - left <= j <= p_i + right or j < prefix, with
  // p_i = i + position_shift, and documents and masks agree.
  std::int64_t position_shift, left, right, prefix;
  const std::int32_t* query_documents;                      // [i]; null: none
  const std::int32_t* key_documents;                        // [j]
  std::int64_t query_document_stride, key_document_stride;  // elements
  ScoreRows mask;                                           // bytes, zero hides
  ScoreRows block_mask;                                     // bytes, [g, i / block_rows, j / block_columns]
  std::int64_t block_rows, block_columns;

  // Dropout (base/philox.hpp): keep <=> draw >= threshold, with stream dropout_stream + g.
  bool dropout;
  std::uint32_t dropout_threshold;
  float dropout_scale;  // 1 / (1 - p)
  std::uint64_t dropout_seed, dropout_stream;
};

/// The prefill kernel of an instruction set: lanes are queries.
struct ForwardUnit {
  int tile_rows;    // query rows of a register tile
  int key_block;    // keys per block
  int packed_rows;  // keys that pack() lays out at a time
  /// Tiles that share a staged key block: a task has at most tile_rows * max_tiles rows.
  int (*max_tiles)(int head_dim, int value_dim);
  std::size_t (*scratch_bytes)(int head_dim, int value_dim);
  void (*run)(const ForwardTask& task, void* scratch);  // scratch is 64-byte aligned
  std::size_t (*packed_bytes)(DataType query_type, DataType key_type, int head_dim, int value_dim);  // of a key block
  /// Lays out keys [first, last) of the block that starts at key `block`, counted from there and in whole register
  /// tiles, at `to`. Of the task only keys, values and query_type count.
  void (*pack)(const ForwardTask& task, std::int64_t block, int first, int last, char* to);
};

STROBE_DECLARE_UNITS(ForwardUnit, forward_unit)

/// KV heads that a decode task can hold.
inline constexpr int kMaxDecodeHeads = 8;

/// The decode kernel of an instruction set: few rows, lanes are head dimensions. It works on the tasks of several KV
/// heads of a sequence at once, block by block, since the heads of a key are neighbours in memory.
struct DecodeUnit {
  std::size_t (*scratch_bytes)(std::int64_t rows, int head_dim, int value_dim);  // of each head
  void (*run)(const ForwardTask* tasks, int heads, void* scratch);               // scratch is 64-byte aligned
};

STROBE_DECLARE_UNITS(DecodeUnit, decode_unit)

}  // namespace strobe::cpu
