// One sequence of a batch: where its rows start, how many are in use, how positions align. Scalar code shared by the
// drivers of all kernels; instruction-set units include only the plain structs (cpu/task.hpp).
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/problem.hpp"
#include "cpu/task.hpp"

namespace strobe::cpu {

inline std::int64_t read_int(const Vectors& vectors, std::int64_t b) {
  return reinterpret_cast<const std::int32_t*>(vectors.data)[b * vectors.batch_stride];
}

/// Row counts and places of sequence b. Lengths outside the stored rows are clamped to them.
inline Sequence sequence_of(const Problem& problem, const Buffers& buffers, std::int64_t b) {
  Sequence s{};
  s.batch = b;
  s.stored_queries = problem.query_length;
  s.stored_keys = problem.key_length;
  if (problem.packed_queries) {
    s.first_query = read_int(buffers.query_offsets, b);
    s.stored_queries = read_int(buffers.query_offsets, b + 1) - s.first_query;
  }
  if (problem.packed_keys) {
    s.first_key = read_int(buffers.key_offsets, b);
    s.stored_keys = read_int(buffers.key_offsets, b + 1) - s.first_key;
  }
  s.queries = s.stored_queries;
  s.keys = s.stored_keys;
  if (problem.has_query_lengths) {
    s.queries = std::clamp<std::int64_t>(read_int(buffers.query_lengths, b), 0, s.stored_queries);
  }
  if (problem.has_key_lengths) {
    s.cached_keys = std::clamp<std::int64_t>(read_int(buffers.key_lengths, b), 0, s.stored_keys);
    s.keys = std::min(s.cached_keys + problem.new_length, s.stored_keys);
  }
  s.cache_row = problem.has_cache_index ? read_int(buffers.cache_batch_index, b) : b;
  s.position_shift = problem.alignment == Alignment::kBottomRight ? s.keys - s.queries : 0;
  s.prefix = problem.has_prefix_lengths ? read_int(buffers.prefix_lengths, b) : problem.prefix_length;
  return s;
}

/// The keys that query i may see by causal, window and length alone: [first, last), and also [0, prefix).
inline KeyRange visible_keys(const Problem& problem, const Sequence& s, std::int64_t i) {
  const std::int64_t position = i + s.position_shift;
  KeyRange range{0, s.keys};
  if (problem.causal) range.last = std::min(range.last, position + 1);
  if (problem.window_right != kUnbounded) range.last = std::min(range.last, position + problem.window_right + 1);
  if (problem.window_left != kUnbounded) range.first = std::max(range.first, position - problem.window_left);
  range.first = std::clamp<std::int64_t>(range.first, 0, s.keys);
  range.last = std::clamp<std::int64_t>(range.last, range.first, s.keys);
  return range;
}

inline KeyRows key_rows(const Problem& problem, const Buffers& buffers, const Sequence& s, const Rows& rows,
                        std::int64_t kv_head) {
  const std::int64_t bytes = std::int64_t(size_of(rows.dtype));
  KeyRows result{};
  result.row_stride = rows.row_stride * bytes;
  result.data = rows.data + kv_head * rows.head_stride * bytes;
  if (problem.page_size > 0) {
    result.page_table =
        reinterpret_cast<const std::int32_t*>(buffers.page_table.data) + s.batch * buffers.page_table.batch_stride;
    result.page_size = problem.page_size;
    result.page_stride = rows.batch_stride * bytes;
  } else if (problem.packed_keys) {
    result.data += s.first_key * result.row_stride;
  } else {
    result.data += s.cache_row * rows.batch_stride * bytes;
  }
  return result;
}

}  // namespace strobe::cpu
