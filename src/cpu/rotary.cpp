// Rotary embedding: a pair (x, y) at position p becomes (x cos - y sin, x sin + y cos), in float32.
#include "cpu/rotary.hpp"

#include <algorithm>
#include <cstring>

#include "base/half.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {
namespace {

/// One pair costs about this much.
constexpr double kNanosecondsPerPair = 6.0;

struct QueryRotation {
  const Problem& problem;
  const Buffers& buffers;
  Rows rotated;
};

/// Chunks are (sequence, query) of the longest possible sequence; those past the end do nothing.
void rotate_query(void* context, std::int64_t chunk, int) {
  const auto& [problem, buffers, rotated] = *static_cast<const QueryRotation*>(context);
  const std::int64_t b = chunk / problem.query_length, i = chunk % problem.query_length;
  const Sequence s = sequence_of(problem, buffers, b);
  if (i >= s.queries) return;
  const bool turns_by_row = problem.causal || problem.window_left != kUnbounded || problem.window_right != kUnbounded;
  const std::int64_t cached = problem.has_key_lengths ? s.cached_keys : s.keys;
  const std::int64_t position = turns_by_row ? i + s.position_shift : cached;
  const std::int64_t bytes = std::int64_t(size_of(problem.query_type));
  const auto row = [&](const Rows& rows) {
    return rows.data + (s.batch * rows.batch_stride + (s.first_query + i) * rows.row_stride) * bytes;
  };
  for (std::int64_t h = 0; h < problem.query_heads; ++h) {
    rotate_row(problem, buffers, position, problem.query_type, problem.head_dim,
               row(buffers.query) + h * buffers.query.head_stride * bytes,
               row(rotated) + h * rotated.head_stride * bytes);
  }
}

}  // namespace

void rotate_row(const Problem& problem, const Buffers& buffers, std::int64_t position, DataType type, std::int64_t dim,
                const char* from, char* to) {
  const std::int64_t bytes = std::int64_t(size_of(type)), pairs = problem.rotary_dim / 2;
  position = std::clamp<std::int64_t>(position, 0, problem.rotary_positions - 1);
  const Vectors &cos = buffers.rotary_cos, &sin = buffers.rotary_sin;
  const bool halves = problem.rotary_style == RotaryStyle::kHalves;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::int64_t first = halves ? pair : 2 * pair, second = halves ? pair + pairs : 2 * pair + 1;
    const float x = load_element(from, type, first), y = load_element(from, type, second);
    const float c = load_element(cos.data, cos.dtype, position * cos.batch_stride + pair * cos.stride);
    const float s = load_element(sin.data, sin.dtype, position * sin.batch_stride + pair * sin.stride);
    store_element(to, type, first, x * c - y * s);
    store_element(to, type, second, x * s + y * c);
  }
  std::memcpy(to + 2 * pairs * bytes, from + 2 * pairs * bytes, std::size_t((dim - 2 * pairs) * bytes));
}

std::size_t rotated_query_bytes(const Problem& problem) {
  if (problem.rotary_dim == 0) return 0;
  const std::int64_t elements = problem.total_queries * problem.query_heads * problem.head_dim;
  return (std::size_t(elements) * size_of(problem.query_type) + 63) / 64 * 64;
}

Rows rotate_queries(const Problem& problem, const Buffers& buffers, Executor& executor, void* workspace) {
  const std::int64_t row = problem.query_heads * problem.head_dim;
  QueryRotation rotation{problem, buffers,
                         Rows{.data = static_cast<char*>(workspace),
                              .dtype = problem.query_type,
                              .batch_stride = problem.packed_queries ? 0 : problem.query_length * row,
                              .row_stride = row,
                              .head_stride = problem.head_dim}};
  const double nanoseconds = kNanosecondsPerPair * double(problem.query_heads * problem.rotary_dim / 2);
  executor.parallel_for(problem.batch * problem.query_length, nanoseconds, rotate_query, &rotation);
  return rotation.rotated;
}

}  // namespace strobe::cpu
