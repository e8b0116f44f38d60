// Writes new keys and values into a cache, dense or paged, behind the keys that it holds.
#include <cstring>

#include "cpu/cpu.hpp"
#include "cpu/rotary.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {
namespace {

struct Append {
  const Problem& problem;
  const Buffers& buffers;
};

char* row_address(const KeyRows& rows, std::int64_t j) {
  if (rows.page_table == nullptr) return rows.data + j * rows.row_stride;
  return rows.data + rows.page_table[j / rows.page_size] * rows.page_stride + j % rows.page_size * rows.row_stride;
}

/// Chunks are (sequence, new row): the key and value of every head.
void append_row(void* context, std::int64_t chunk, int) {
  const auto& [problem, buffers] = *static_cast<const Append*>(context);
  const std::int64_t b = chunk / problem.new_length, i = chunk % problem.new_length;
  const Sequence s = sequence_of(problem, buffers, b);
  const std::int64_t position = s.cached_keys + i;
  if (position >= s.keys) return;
  const std::size_t bytes = size_of(problem.key_type);
  for (std::int64_t h = 0; h < problem.kv_heads; ++h) {
    const auto new_row = [&](const Rows& rows) {
      return rows.data + (b * rows.batch_stride + i * rows.row_stride + h * rows.head_stride) * std::int64_t(bytes);
    };
    char* key = row_address(key_rows(problem, buffers, s, buffers.key, h), position);
    char* value = row_address(key_rows(problem, buffers, s, buffers.value, h), position);
    if (problem.rotary_dim > 0) {
      rotate_row(problem, buffers, position, problem.key_type, problem.head_dim, new_row(buffers.new_key), key);
    } else {
      std::memcpy(key, new_row(buffers.new_key), std::size_t(problem.head_dim) * bytes);
    }
    std::memcpy(value, new_row(buffers.new_value), std::size_t(problem.value_dim) * bytes);
  }
}

}  // namespace

void append(const Problem& problem, const Buffers& buffers, Executor& executor) {
  Append job{problem, buffers};
  const double bytes = double((problem.head_dim + problem.value_dim) * problem.kv_heads) * size_of(problem.key_type);
  const double nanoseconds = problem.rotary_dim > 0 ? bytes : 0.2 * bytes;
  executor.parallel_for(problem.batch * problem.new_length, nanoseconds, append_row, &job);
}

}  // namespace strobe::cpu
