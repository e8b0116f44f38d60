// What index tensors hold: offsets rise, lengths fit, pages and cache rows exist, positions stay in their tables.
#include <algorithm>
#include <bitset>
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

std::int64_t integer_at(const Vectors& vectors, std::int64_t b, std::int64_t i = 0) {
  return reinterpret_cast<const std::int32_t*>(vectors.data)[b * vectors.batch_stride + i * vectors.stride];
}

/// "entry 3 = -7"
std::string entry(std::int64_t index, std::int64_t value) {
  return "entry " + std::to_string(index) + " = " + std::to_string(value);
}

void check_offsets(const char* argument, const Vectors& offsets, std::int64_t batch, std::int64_t total) {
  if (integer_at(offsets, 0) != 0) refuse(argument, entry(0, integer_at(offsets, 0)), "0 at its start");
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t next = integer_at(offsets, b + 1);
    if (next < integer_at(offsets, b)) {
      refuse(argument, entry(b + 1, next) + " after " + std::to_string(integer_at(offsets, b)), "sums that never fall");
    }
  }
  if (integer_at(offsets, batch) != total) {
    refuse(argument, entry(batch, integer_at(offsets, batch)),
           std::to_string(total) + " at its end, the rows there are");
  }
}

/// One sequence's rows: stored, in use, and in use before appending.
struct Lengths {
  std::int64_t stored_queries, stored_keys, queries, keys, cached_keys;
};

Lengths lengths_of(const Problem& problem, const Buffers& buffers, std::int64_t b) {
  Lengths lengths{problem.query_length, problem.key_length, 0, 0, 0};
  if (problem.packed_queries) {
    lengths.stored_queries = integer_at(buffers.query_offsets, b + 1) - integer_at(buffers.query_offsets, b);
  }
  if (problem.packed_keys) {
    lengths.stored_keys = integer_at(buffers.key_offsets, b + 1) - integer_at(buffers.key_offsets, b);
  }
  lengths.queries = problem.has_query_lengths ? integer_at(buffers.query_lengths, b) : lengths.stored_queries;
  lengths.cached_keys = problem.has_key_lengths ? integer_at(buffers.key_lengths, b) : lengths.stored_keys;
  lengths.keys = lengths.cached_keys + problem.new_length;
  return lengths;
}

void check_sequence(const Problem& problem, const Buffers& buffers, const Lengths& lengths, std::int64_t b) {
  if (lengths.queries < 0 || lengths.queries > lengths.stored_queries) {
    refuse("query_lengths", entry(b, lengths.queries), "from 0 to " + std::to_string(lengths.stored_queries));
  }
  if (lengths.cached_keys < 0 || lengths.cached_keys > lengths.stored_keys) {
    refuse("key_lengths", entry(b, lengths.cached_keys), "from 0 to " + std::to_string(lengths.stored_keys));
  }
  if (lengths.keys > lengths.stored_keys) {
    refuse("key_lengths", entry(b, lengths.cached_keys),
           "at most " + std::to_string(lengths.stored_keys - problem.new_length) + ", to leave room for " +
               std::to_string(problem.new_length) + " new keys");
  }
  if (problem.has_prefix_lengths && integer_at(buffers.prefix_lengths, b) < 0) {
    refuse("prefix_lengths", entry(b, integer_at(buffers.prefix_lengths, b)), "at least 0");
  }
}

void check_rows_and_pages(const Inspection& call, const Lengths& lengths, std::int64_t b) {
  const Problem& problem = call.problem();
  const Buffers& buffers = call.checked.buffers;
  const std::int64_t rows = call.attention.key.shape[0];
  if (problem.has_cache_index) {
    const std::int64_t row = integer_at(buffers.cache_batch_index, b);
    if (row < 0 || row >= rows) {
      refuse("cache_batch_index", entry(b, row), "from 0 to " + std::to_string(rows - 1) + ", the rows of key");
    }
  }
  if (problem.page_size == 0) return;
  const std::int64_t pages = (lengths.keys + problem.page_size - 1) / problem.page_size;
  for (std::int64_t i = 0; i < pages; ++i) {
    const std::int64_t page = integer_at(buffers.page_table, b, i);
    if (page < 0 || page >= rows) {
      refuse("page_table", "entry [" + std::to_string(b) + ", " + std::to_string(i) + "] = " + std::to_string(page),
             "from 0 to " + std::to_string(rows - 1) + ", the pages of key");
    }
  }
}

/// Every position that rotates a new key or a query is in the tables.
void check_positions(const Problem& problem, const Lengths& lengths, std::int64_t b) {
  const bool turns_by_row = problem.causal || problem.window_left != kUnbounded || problem.window_right != kUnbounded;
  std::int64_t first = 0, last = -1;
  if (problem.new_length > 0) last = lengths.keys - 1;
  if (lengths.queries > 0) {
    first = turns_by_row && problem.alignment == Alignment::kBottomRight ? lengths.keys - lengths.queries : 0;
    last = std::max(last, turns_by_row ? first + lengths.queries - 1 : lengths.cached_keys);
  }
  if (first < 0) {
    refuse("query",
           std::to_string(lengths.queries) + " rows in sequence " + std::to_string(b) + " of " +
               std::to_string(lengths.keys) + " keys",
           "of no more rows than keys: rotary has no negative positions");
  }
  if (last >= problem.rotary_positions) {
    refuse("rotary_cos", std::to_string(problem.rotary_positions) + " positions",
           "at least " + std::to_string(last + 1) + " positions, for sequence " + std::to_string(b));
  }
}

/// The rows of a cache, or its pages, that new keys go to: body(row).
template <typename Body>
void for_append_places(const Problem& problem, const Buffers& buffers, const Body& body) {
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    if (problem.has_cache_index) body(integer_at(buffers.cache_batch_index, b));
    if (problem.page_size == 0) continue;
    const Lengths lengths = lengths_of(problem, buffers, b);
    for (std::int64_t i = lengths.cached_keys / problem.page_size; i * problem.page_size < lengths.keys; ++i) {
      body(integer_at(buffers.page_table, b, i));
    }
  }
}

/// Two sequences that append to one place would race. Running allocates nothing, so places are crossed off on the
/// stack, a stretch of the cache at a time.
void check_append_places(const Inspection& call) {
  constexpr std::int64_t kStretch = 1 << 16;
  const Problem& problem = call.problem();
  const bool paged = problem.page_size > 0;
  if (!paged && !problem.has_cache_index) return;
  for (std::int64_t first = 0; first < call.attention.key.shape[0]; first += kStretch) {
    std::bitset<kStretch> taken;
    for_append_places(problem, call.checked.buffers, [&](std::int64_t place) {
      if (place < first || place >= first + kStretch) return;
      if (taken.test(std::size_t(place - first))) {
        refuse(paged ? "page_table" : "cache_batch_index",
               (paged ? "page " : "row ") + std::to_string(place) + " twice where new keys go",
               "different for every place that is appended to");
      }
      taken.set(std::size_t(place - first));
    });
  }
}

/// Packed sequences index masks and bias by their own rows, so the longest must fit. Where the size itself counts,
/// since a gradient of that size is written, it must fit exactly.
struct PackedScores {
  bool broadcasts = false, exactly = false;
};
void check_packed_scores(const char* argument, const Tensor& tensor, const Problem& problem, PackedScores rule,
                         std::int64_t longest_queries, std::int64_t longest_keys) {
  if (!tensor.given()) return;
  const auto fits = [&](int axis, bool packed, std::int64_t longest) {
    const std::int64_t size = tensor.shape[axis];
    return !packed || size == longest || (size > longest && !rule.exactly) || (rule.broadcasts && size == 1);
  };
  if (fits(2, problem.packed_queries, longest_queries) && fits(3, problem.packed_keys, longest_keys)) return;
  refuse(argument, tensor,
         std::string(rule.exactly ? "of " : "of at least ") + std::to_string(longest_queries) + " rows and " +
             std::to_string(longest_keys) + " columns, for the longest sequence");
}

void check_shared_documents(const Inspection& call) {
  const Problem& problem = call.problem();
  if (!problem.has_documents || call.attention.key_documents.given() || !problem.packed_keys) return;
  for (std::int64_t b = 0; b <= problem.batch; ++b) {
    if (integer_at(call.checked.buffers.query_offsets, b) == integer_at(call.checked.buffers.key_offsets, b)) continue;
    refuse("key_documents", call.attention.key_documents, "given, since key_offsets differ from query_offsets");
  }
}

}  // namespace

void check_contents(const Inspection& call) {
  const Problem& problem = call.problem();
  const Buffers& buffers = call.checked.buffers;
  const Attention& attention = call.attention;
  if (problem.packed_queries)
    check_offsets("query_offsets", buffers.query_offsets, problem.batch, problem.total_queries);
  if (problem.packed_keys) check_offsets("key_offsets", buffers.key_offsets, problem.batch, problem.total_keys);
  const bool plain = !problem.packed_queries && !problem.packed_keys && !problem.has_query_lengths &&
                     !problem.has_key_lengths && !problem.has_prefix_lengths && !problem.has_cache_index &&
                     problem.page_size == 0 && problem.rotary_dim == 0;
  if (plain) return;
  std::int64_t longest_queries = 0, longest_keys = 0;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const Lengths lengths = lengths_of(problem, buffers, b);
    check_sequence(problem, buffers, lengths, b);
    check_rows_and_pages(call, lengths, b);
    if (problem.rotary_dim > 0) check_positions(problem, lengths, b);
    longest_queries = std::max(longest_queries, lengths.stored_queries);
    longest_keys = std::max(longest_keys, lengths.stored_keys);
  }
  if (problem.new_length > 0) check_append_places(call);
  if (problem.packed_queries || problem.packed_keys) {
    check_packed_scores("bias", attention.bias, problem, {true, problem.wants_grad_bias}, longest_queries,
                        longest_keys);
    check_packed_scores("mask", attention.mask, problem, {.broadcasts = true}, longest_queries, longest_keys);
    const auto tiles = [](std::int64_t length, std::int64_t tile) { return tile > 0 ? (length + tile - 1) / tile : 0; };
    check_packed_scores("block_mask", attention.block_mask, problem, {}, tiles(longest_queries, problem.block_rows),
                        tiles(longest_keys, problem.block_columns));
    check_shared_documents(call);
  }
}

}  // namespace strobe::check
