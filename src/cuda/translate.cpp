// Shapes, strides and options as kernels want them; nothing is decided here.
#include "cuda/translate.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "base/philox.hpp"

namespace strobe::cuda {
namespace {

/// The largest of 16, 8, 4, 2, 1 that divides every place where a row may start, and its length.
int vector_bytes_of(const Rows& rows, std::int64_t dim) {
  const auto bytes = std::int64_t(size_of(rows.dtype));
  const std::uint64_t places = reinterpret_cast<std::uintptr_t>(rows.data) |
                               std::uint64_t((rows.batch_stride | rows.row_stride | rows.head_stride | dim) * bytes) |
                               16;
  return 1 << std::countr_zero(places);
}

/// Whether rows of `columns` elements may be copied 16 bytes at a time.
bool lies_in_chunks(const Scores& scores, std::int64_t columns) {
  const auto bytes = std::int64_t(size_of(scores.dtype));
  const std::int64_t places = (scores.batch_stride | scores.head_stride | scores.row_stride | columns) * bytes;
  return scores.column_stride == 1 && (reinterpret_cast<std::uintptr_t>(scores.data) | std::uint64_t(places)) % 16 == 0;
}

int bounded(std::int64_t bound) { return bound == kUnbounded ? kFar : int(std::min<std::int64_t>(bound, kFar)); }

}  // namespace

RowsView view_of(const Rows& rows, std::int64_t dim) {
  return {.data = rows.data,
          .batch_stride = rows.batch_stride,
          .row_stride = rows.row_stride,
          .head_stride = rows.head_stride,
          .type = Element(rows.dtype),
          .vector_bytes = vector_bytes_of(rows, dim)};
}

ScoresView view_of(const Scores& scores) {
  return {.data = scores.data,
          .batch_stride = scores.batch_stride,
          .head_stride = scores.head_stride,
          .row_stride = scores.row_stride,
          .column_stride = scores.column_stride,
          .type = Element(scores.dtype),
          .in_chunks = false};
}

VectorView view_of(const Vectors& vectors) {
  return {.data = vectors.data, .batch_stride = vectors.batch_stride, .stride = vectors.stride};
}

AttentionParams params_of(const Problem& problem, const Buffers& buffers) {
  AttentionParams params{};
  describe(problem, buffers, params);
  return params;
}

void describe(const Problem& problem, const Buffers& buffers, AttentionParams& p) {
  p.batch = int(problem.batch);
  p.query_heads = int(problem.query_heads);
  p.kv_heads = int(problem.kv_heads);
  p.group = int(problem.group());
  p.head_dim = int(problem.head_dim);
  p.value_dim = int(problem.value_dim);
  p.query_length = int(problem.packed_queries ? problem.total_queries : problem.query_length);
  p.key_length = int(problem.packed_keys ? problem.total_keys : problem.key_length);
  p.page_size = int(problem.page_size);
  const std::int64_t rows_together = problem.page_size > 0 ? problem.page_size : problem.key_length;
  const std::int64_t stretches = problem.packed_keys || rows_together == 0 ? 0 : problem.total_keys / rows_together;
  p.pages = problem.page_size > 0 ? int(stretches) : 0;
  p.cache_rows = int(stretches);
  p.pages_per_sequence = int(problem.page_size > 0 ? problem.key_length / problem.page_size : 0);
  p.new_length = int(problem.new_length);
  p.packed_queries = problem.packed_queries;
  p.packed_keys = problem.packed_keys;
  p.bottom_right = problem.alignment == Alignment::kBottomRight;
  p.ragged = problem.packed_queries || problem.packed_keys || problem.page_size > 0 || problem.has_query_lengths ||
             problem.has_key_lengths || problem.has_prefix_lengths || problem.has_cache_index;

  p.query = view_of(buffers.query, problem.head_dim);
  p.key = view_of(buffers.key, problem.head_dim);
  p.value = view_of(buffers.value, problem.value_dim);
  p.output = view_of(buffers.output, problem.value_dim);
  if (problem.has_lse) p.lse = view_of(buffers.lse);

  p.scale = problem.scale;
  p.softcap = problem.softcap;
  if (problem.has_descale) {
    p.query_descale = view_of(buffers.query_descale);
    p.key_descale = view_of(buffers.key_descale);
    p.value_descale = view_of(buffers.value_descale);
  }
  if (problem.has_bias) {
    p.bias = view_of(buffers.bias);
    p.bias.in_chunks = !problem.packed_keys && lies_in_chunks(buffers.bias, problem.key_length);
  }
  if (problem.has_alibi) p.alibi_slopes = view_of(buffers.alibi_slopes);
  if (problem.has_sink) p.sink = view_of(buffers.sink);

  p.left = bounded(problem.window_left);
  p.right = problem.causal ? 0 : bounded(problem.window_right);
  p.prefix = int(std::min<std::int64_t>(problem.prefix_length, kFar));
  if (problem.has_mask) {
    p.mask = view_of(buffers.mask);
    p.mask.in_chunks = !problem.packed_keys && lies_in_chunks(buffers.mask, problem.key_length);
  }
  if (problem.has_block_mask) p.block_mask = view_of(buffers.block_mask);
  p.block_rows = int(problem.block_rows);
  p.block_columns = int(problem.block_columns);
  if (problem.has_documents) {
    p.query_documents = view_of(buffers.query_documents);
    p.key_documents = view_of(buffers.key_documents);
  }

  if (problem.packed_queries) p.query_offsets = view_of(buffers.query_offsets);
  if (problem.packed_keys) p.key_offsets = view_of(buffers.key_offsets);
  if (problem.has_query_lengths) p.query_lengths = view_of(buffers.query_lengths);
  if (problem.has_key_lengths) p.key_lengths = view_of(buffers.key_lengths);
  if (problem.has_prefix_lengths) p.prefix_lengths = view_of(buffers.prefix_lengths);
  if (problem.has_cache_index) p.cache_batch_index = view_of(buffers.cache_batch_index);
  if (problem.page_size > 0) p.page_table = view_of(buffers.page_table);

  p.dropout_scale = 1.0f;
  if (problem.dropout > 0.0f) {
    p.dropout_threshold = dropout_threshold(problem.dropout);
    p.dropout_scale = 1.0f / (1.0f - problem.dropout);
    p.dropout_seed = problem.dropout_seed;
    p.dropout_offset = problem.dropout_offset;
  }
}

int features_of(const Problem& problem) {
  int features = 0;
  if (problem.softcap > 0.0f) features |= kSoftcap;
  if (problem.has_bias) features |= kBias;
  if (problem.has_alibi) features |= kAlibi;
  if (problem.has_documents) features |= kDocuments;
  if (problem.has_mask) features |= kMask;
  if (problem.has_block_mask) features |= kBlockMask;
  if (problem.dropout > 0.0f) features |= kDropout;
  // A scale that is not positive turns the order of scores round.
  if (!(problem.scale > 0.0f)) features |= kNegativeScale;
  return std::has_single_bit(unsigned(features)) || features == 0 ? features : kAllFeatures;
}

std::int64_t query_tiles_of(const Problem& problem, int tile_rows) {
  if (problem.packed_queries) return problem.total_queries / tile_rows + problem.batch;
  return (problem.query_length + tile_rows - 1) / tile_rows;
}

std::int64_t tiled_heads_of(const Problem& problem) {
  return problem.packed_queries ? problem.query_heads : problem.batch * problem.query_heads;
}

std::int64_t query_slots_of(const Problem& problem, int tile_rows) {
  const std::int64_t tiles = query_tiles_of(problem, tile_rows);
  return problem.packed_queries ? tiles + 1 : problem.batch * tiles;
}

std::int64_t key_blocks_of(const Problem& problem, int block_keys) {
  if (problem.packed_keys) return problem.total_keys / block_keys + problem.batch + 1;
  return (problem.key_length + block_keys - 1) / block_keys;
}

std::int64_t blocked_heads_of(const Problem& problem) {
  return problem.packed_keys ? problem.kv_heads : problem.batch * problem.kv_heads;
}

HeadGroups in_groups(int heads, int of_group) {
  const int groups = std::max((heads + of_group / 2) / of_group, 1);
  return {heads / groups, groups - heads % groups};
}

void require_regular_rows(const Problem& problem, const char* tensors, const char* kernel, const char* function) {
  if (problem.regular_rows) return;
  throw Error(ErrorCode::kUnsupported, tensors,
              "of rows that do not start at multiples of 16 bytes, in the order of memory",
              std::string("of rows that do, for this plan's kernel ") + kernel +
                  "; make the plan with these tensors, or call " + function + ", which plans by itself");
}

}  // namespace strobe::cuda
