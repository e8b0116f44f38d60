// What the host hands to every attention kernel, by value: the shapes, options and pointers of one call. Host and
// kernels read this one file, so it includes nothing and uses built-in types only. src/base/problem.hpp has the same
// facts for the host; params.cpp translates.
#pragma once

namespace strobe::cuda {

/// Element types, with the values of strobe::DataType.
enum class Element : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kFloat8E4M3 = 3, kFloat8E5M2 = 4 };

/// Rows of a [.., length, heads, dim] tensor: element (b, i, h, d) lies at
/// data + (b * batch_stride + i * row_stride + h * head_stride + d) * size of the element.
/// Packed tensors have batch_stride 0 and rows counted over all sequences; of a paged cache b is the page.
struct RowsView {
  char* data;
  long long batch_stride, row_stride, head_stride;
  Element type;
  int vector_bytes;  // 16, 8, 4 or 2: the length of every row and the place where it starts are multiples of this
};

/// A [batch, heads, i, j] tensor, strides in elements; broadcast axes have stride 0. No data: not given.
struct ScoresView {
  char* data;
  long long batch_stride, head_stride, row_stride, column_stride;
  Element type;
  bool in_chunks;  // rows lie 16 bytes at a time: where they start and end are multiples, and columns are neighbours
};

/// The driver's CUtensorMap: how the tensor copy engine of sm_90 and later finds boxes of a tensor. Opaque to us; made
/// by the host, read by kernels.
struct alignas(64) TensorMap {
  unsigned long long words[16];
};

/// A [batch, n] tensor of small facts, strides in elements; broadcast axes have stride 0. No data: not given.
struct VectorView {
  char* data;
  long long batch_stride, stride;
};

/// "No bound", in AttentionParams::left and right.
constexpr int kFar = 1 << 30;

/// Heads that are worked on side by side: `small_groups` groups of `heads`, then groups of one more.
struct HeadGroups {
  int heads, small_groups;
};

struct AttentionParams {
  int batch, query_heads, kv_heads, group;  // group = query_heads / kv_heads
  int head_dim, value_dim;
  int query_length, key_length;  // stored rows of a sequence; packed: of all sequences together
  int page_size;                 // 0: not paged
  int pages, cache_rows;         // pages of a paged cache; rows of a dense cache or the batch
  int pages_per_sequence;        // columns of page_table
  int new_length;                // keys that were appended to each sequence before this call's attention
  bool packed_queries, packed_keys, bottom_right;
  bool ragged;  // where rows lie and how many are in use is in device memory: packed, pages, lengths, cache indices

  RowsView query, key, value, output;
  ScoresView lse;  // float32 [b, h, i]; column_stride unused

  // Scores.
  float scale, softcap;
  VectorView query_descale, key_descale, value_descale;  // float32 [b, kv head], for float8; no data: 1
  ScoresView bias;
  VectorView alibi_slopes;  // float32 [b, h]
  VectorView sink;          // float32 [h]

  // Visibility.
  int left, right;  // p_i - left <= j <= p_i + right; causal means right = 0
  int prefix;
  ScoresView mask, block_mask;  // bytes
  int block_rows, block_columns;
  VectorView query_documents, key_documents;  // int32 [b, i]; packed: i counted over all rows

  // int32 [b], or [b + 1] for offsets.
  VectorView query_offsets, key_offsets, query_lengths, key_lengths, prefix_lengths, cache_batch_index;
  VectorView page_table;  // int32 [b, page]

  // Dropout: keep where the draw is at least the threshold (base/philox.hpp).
  unsigned dropout_threshold;
  float dropout_scale;  // 1 / (1 - p)
  unsigned long long dropout_seed, dropout_offset;
};

/// Options whose code a kernel is compiled with, as bits of its STROBE_FEATURES. A kernel with more features than a
/// problem needs computes the same, more slowly.
enum Feature : int {
  kSoftcap = 1,
  kBias = 2,
  kAlibi = 4,
  kDocuments = 8,
  kMask = 16,
  kBlockMask = 32,
  kDropout = 64,
  kNegativeScale = 128,  // the largest product is not the largest score
  kAllFeatures = 255,
};

}  // namespace strobe::cuda
