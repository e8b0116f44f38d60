// Which keys a query may see: causal, window, prefix, documents, masks; and the lengths that bound them.
#include <algorithm>
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

/// Wider than any distance between a query and a key, so that a larger bound means the same.
constexpr std::int64_t kFarthest = std::int64_t(1) << 32;

std::int64_t check_bound(const char* argument, const std::optional<std::int64_t>& bound) {
  if (!bound) return kUnbounded;
  if (*bound < 0) refuse(argument, std::to_string(*bound), "at least 0, or not given");
  return std::min(*bound, kFarthest);
}

void check_prefix(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  if (attention.prefix_length < 0) refuse("prefix_length", std::to_string(attention.prefix_length), "at least 0");
  problem.prefix_length = std::min(attention.prefix_length, kFarthest);
  problem.has_prefix_lengths = attention.prefix_lengths.given();
  if (!problem.has_prefix_lengths) return;
  if (problem.prefix_length > 0)
    refuse("prefix_length", std::to_string(problem.prefix_length), "0 when prefix_lengths is given");
  expect_input("prefix_lengths", attention.prefix_lengths, kInt32, {{"batch", problem.batch}}, call.data);
  call.buffers().prefix_lengths = integers_of(attention.prefix_lengths);
}

void check_documents(Inspection& call) {
  const Attention& attention = call.attention;
  const Tensor &of_queries = attention.query_documents, &of_keys = attention.key_documents;
  Problem& problem = call.problem();
  problem.has_documents = of_queries.given();
  if (!of_queries.given()) {
    if (of_keys.given()) refuse("query_documents", of_queries, "given, since key_documents is");
    return;
  }
  const Axis batch{"batch", problem.batch};
  if (problem.packed_queries) {
    expect_input("query_documents", of_queries, kInt32, {{"total_queries", problem.total_queries}}, call.data);
  } else {
    expect_input("query_documents", of_queries, kInt32, {batch, {"query_length", problem.query_length}}, call.data);
  }
  if (of_keys.given()) {
    if (problem.packed_keys) {
      expect_input("key_documents", of_keys, kInt32, {{"total_keys", problem.total_keys}}, call.data);
    } else {
      expect_input("key_documents", of_keys, kInt32, {batch, {"key_length", problem.key_length}}, call.data);
    }
  } else if (problem.packed_queries != problem.packed_keys || problem.query_length != problem.key_length) {
    refuse("key_documents", of_keys, "given, since there are not as many keys as queries");
  }
  call.buffers().query_documents = vectors_of(of_queries);
  call.buffers().key_documents = vectors_of(of_keys.given() ? of_keys : of_queries);
}

void check_mask(Inspection& call) {
  const Tensor& mask = call.attention.mask;
  call.problem().has_mask = mask.given();
  if (!mask.given()) return;
  expect_scores_shape("mask", mask, call);
  expect_type("mask", mask, kBool);
  expect_layout("mask", mask, Innermost::kOneOrZero);
  expect_memory("mask", mask, call.data);
  call.buffers().mask = scores_of(mask);
}

void check_block_mask(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  problem.has_block_mask = attention.block_mask.given();
  if (!problem.has_block_mask) return;
  if (attention.block_rows < 1)
    refuse("block_rows", std::to_string(attention.block_rows), "at least 1 with a block mask");
  if (attention.block_columns < 1) {
    refuse("block_columns", std::to_string(attention.block_columns), "at least 1 with a block mask");
  }
  problem.block_rows = std::min(attention.block_rows, kFarthest);
  problem.block_columns = std::min(attention.block_columns, kFarthest);
  const auto tiles = [](std::int64_t length, std::int64_t tile) { return (length + tile - 1) / tile; };
  const Axis rows = problem.packed_queries
                        ? any_size("tiles of the longest query_length")
                        : Axis{"ceil(query_length / block_rows)", tiles(problem.query_length, problem.block_rows)};
  const Axis columns = problem.packed_keys
                           ? any_size("tiles of the longest key_length")
                           : Axis{"ceil(key_length / block_columns)", tiles(problem.key_length, problem.block_columns)};
  expect_input("block_mask", attention.block_mask, kBool,
               {or_one("batch", problem.batch), or_one("query_heads", problem.query_heads), rows, columns}, call.data);
  call.buffers().block_mask = scores_of(attention.block_mask);
}

}  // namespace

void check_lengths(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  problem.has_query_lengths = attention.query_lengths.given();
  problem.has_key_lengths = attention.key_lengths.given();
  const Axis batch{"batch", problem.batch};
  if (problem.has_query_lengths) {
    expect_input("query_lengths", attention.query_lengths, kInt32, {batch}, call.data);
    call.buffers().query_lengths = integers_of(attention.query_lengths);
  }
  if (problem.has_key_lengths) {
    expect_input("key_lengths", attention.key_lengths, kInt32, {batch}, call.data);
    call.buffers().key_lengths = integers_of(attention.key_lengths);
  }
}

void check_visibility(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  problem.causal = attention.causal;
  problem.window_left = check_bound("window_left", attention.window_left);
  problem.window_right = check_bound("window_right", attention.window_right);
  if (attention.alignment != Alignment::kBottomRight && attention.alignment != Alignment::kTopLeft) {
    refuse("alignment", std::to_string(int(attention.alignment)), "bottom_right (0) or top_left (1)");
  }
  problem.alignment = attention.alignment;
  check_prefix(call);
  check_documents(call);
  check_mask(call);
  check_block_mask(call);
}

}  // namespace strobe::check
