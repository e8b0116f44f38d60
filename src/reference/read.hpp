// How the reference reads a problem: one sequence of a batch, one row of a tensor, whether a query sees a key.
// Written apart from the kernels' own, which it judges.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/half.hpp"
#include "base/problem.hpp"

namespace strobe::reference {

inline std::int64_t read_int(const Vectors& from, std::int64_t b, std::int64_t i = 0) {
  return reinterpret_cast<const std::int32_t*>(from.data)[b * from.batch_stride + i * from.stride];
}
inline double read(const Vectors& from, std::int64_t b, std::int64_t i) {
  return load_element(from.data, from.dtype, b * from.batch_stride + i * from.stride);
}
inline std::int64_t offset_of(const Scores& at, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  return b * at.batch_stride + h * at.head_stride + i * at.row_stride + j * at.column_stride;
}
inline double read(const Scores& from, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  return load_element(from.data, from.dtype, offset_of(from, b, h, i, j));
}
inline bool is_set(const Scores& from, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  return from.data[offset_of(from, b, h, i, j)] != 0;
}

/// One sequence of the batch.
struct Sequence {
  std::int64_t b = 0;
  std::int64_t first_query = 0, first_key = 0;  // rows before it in packed tensors
  std::int64_t queries = 0, keys = 0;           // in use; appended keys are counted
  std::int64_t cached_keys = 0;                 // before appending
  std::int64_t cache_row = 0;
  std::int64_t shift = 0;  // p_i = i + shift
  std::int64_t prefix = 0;
};

inline Sequence sequence_of(const Problem& problem, const Buffers& buffers, std::int64_t b) {
  Sequence s{.b = b, .queries = problem.query_length, .keys = problem.key_length, .cache_row = b};
  if (problem.packed_queries) {
    s.first_query = read_int(buffers.query_offsets, b);
    s.queries = read_int(buffers.query_offsets, b + 1) - s.first_query;
  }
  if (problem.packed_keys) {
    s.first_key = read_int(buffers.key_offsets, b);
    s.keys = read_int(buffers.key_offsets, b + 1) - s.first_key;
  }
  if (problem.has_query_lengths) s.queries = read_int(buffers.query_lengths, b);
  if (problem.has_key_lengths) s.keys = read_int(buffers.key_lengths, b);
  s.cached_keys = s.keys;
  s.keys += problem.new_length;
  if (problem.has_cache_index) s.cache_row = read_int(buffers.cache_batch_index, b);
  if (problem.alignment == Alignment::kBottomRight) s.shift = s.keys - s.queries;
  s.prefix = problem.has_prefix_lengths ? read_int(buffers.prefix_lengths, b) : problem.prefix_length;
  return s;
}

/// Whether key j of the sequence is visible to query i of head h.
inline bool visible(const Problem& problem, const Buffers& buffers, const Sequence& s, std::int64_t h, std::int64_t i,
                    std::int64_t j) {
  const std::int64_t position = i + s.shift;
  if (j >= s.prefix) {
    if (problem.causal && j > position) return false;
    if (problem.window_left != kUnbounded && j < position - problem.window_left) return false;
    if (problem.window_right != kUnbounded && j > position + problem.window_right) return false;
  }
  if (problem.has_documents && read_int(buffers.query_documents, s.b, s.first_query + i) !=
                                   read_int(buffers.key_documents, s.b, s.first_key + j)) {
    return false;
  }
  if (problem.has_block_mask &&
      !is_set(buffers.block_mask, s.b, h, i / problem.block_rows, j / problem.block_columns)) {
    return false;
  }
  return !problem.has_mask || is_set(buffers.mask, s.b, h, i, j);
}

/// `dim` elements from `offset`, times `factor`.
inline std::vector<double> read_row(const Rows& rows, std::int64_t offset, std::int64_t dim, double factor = 1.0) {
  std::vector<double> row(static_cast<std::size_t>(dim));
  for (std::int64_t d = 0; d < dim; ++d) row[d] = factor * load_element(rows.data, rows.dtype, offset + d);
  return row;
}

/// Where row i of the sequence's queries (or outputs, or gradients of them) begins.
inline std::int64_t query_offset(const Rows& rows, const Sequence& s, std::int64_t i, std::int64_t h) {
  return s.b * rows.batch_stride + (s.first_query + i) * rows.row_stride + h * rows.head_stride;
}

/// Where key or value j of the sequence begins, in a plain tensor, a cache or a page of one.
inline std::int64_t key_offset(const Problem& problem, const Buffers& buffers, const Rows& rows, const Sequence& s,
                               std::int64_t j, std::int64_t kv_head) {
  if (problem.page_size > 0) {
    const std::int64_t page = read_int(buffers.page_table, s.b, j / problem.page_size);
    return page * rows.batch_stride + j % problem.page_size * rows.row_stride + kv_head * rows.head_stride;
  }
  return s.cache_row * rows.batch_stride + (s.first_key + j) * rows.row_stride + kv_head * rows.head_stride;
}

/// Turns the pairs of the first rotary_dim elements by the angles of `position`; the tables' ends serve beyond them.
inline void rotate(const Problem& problem, const Buffers& buffers, std::int64_t position, std::vector<double>& row) {
  const std::int64_t pairs = problem.rotary_dim / 2;
  position = std::clamp<std::int64_t>(position, 0, problem.rotary_positions - 1);
  const bool halves = problem.rotary_style == RotaryStyle::kHalves;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const double cosine = read(buffers.rotary_cos, position, pair), sine = read(buffers.rotary_sin, position, pair);
    double& x = row[halves ? pair : 2 * pair];
    double& y = row[halves ? pair + pairs : 2 * pair + 1];
    const double turned = x * cosine - y * sine;
    y = x * sine + y * cosine;
    x = turned;
  }
}

}  // namespace strobe::reference
