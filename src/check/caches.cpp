// Keys and values that live in a cache: which rows or pages serve a sequence, what is appended, and how it is rotated.
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

void check_cache_index(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  problem.has_cache_index = attention.cache_batch_index.given();
  if (!problem.has_cache_index) return;
  if (problem.packed_keys || attention.page_table.given()) {
    refuse("cache_batch_index", attention.cache_batch_index,
           problem.packed_keys ? "not given with key_offsets" : "not given with page_table");
  }
  expect_input("cache_batch_index", attention.cache_batch_index, kInt32, {{"batch", problem.batch}}, call.data);
  call.buffers().cache_batch_index = integers_of(attention.cache_batch_index);
}

void check_page_table(Inspection& call) {
  const Tensor& table = call.attention.page_table;
  Problem& problem = call.problem();
  if (!table.given()) return;
  if (problem.packed_keys) refuse("page_table", table, "not given with key_offsets");
  expect_input("page_table", table, kInt32, {{"batch", problem.batch}, any_size("pages_per_sequence")}, call.data);
  problem.page_size = call.attention.key.shape[1];
  problem.key_length = table.shape[1] * problem.page_size;
  if (problem.key_length > kMaxAxis) {
    refuse("page_table", describe(table) + " for pages of " + std::to_string(problem.page_size),
           "of at most 2147483647 positions");
  }
  call.buffers().page_table = vectors_of(table);
}

void check_new_keys(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  const Tensor &key = attention.new_key, &value = attention.new_value;
  if (!key.given() && !value.given()) return;
  if (!key.given()) refuse("new_key", key, "given, since new_value is");
  if (problem.packed_keys) refuse("new_key", key, "not given with key_offsets: packed keys are no cache");
  if (!problem.has_key_lengths) refuse("key_lengths", attention.key_lengths, "given, since new_key goes behind them");
  const Axis batch{"batch", problem.batch}, heads{"kv_heads", problem.kv_heads};
  const Types types{bit(problem.key_type), "the type of key"};
  expect_input("new_key", key, types, {batch, any_size("new_length"), heads, {"head_dim", problem.head_dim}},
               call.data);
  expect_input("new_value", value, types,
               {batch, {"new_length", key.shape[1]}, heads, {"value_dim", problem.value_dim}}, call.data);
  expect_distinct_elements("key", attention.key);
  expect_distinct_elements("value", attention.value);
  problem.new_length = key.shape[1];
  if (problem.new_length > problem.key_length) {
    refuse("new_key", key, "of at most the " + std::to_string(problem.key_length) + " positions that a sequence has");
  }
  call.buffers().new_key = rows_of(key);
  call.buffers().new_value = rows_of(value);
}

void check_rotary(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  const Tensor &cos = attention.rotary_cos, &sin = attention.rotary_sin;
  if (!cos.given() && !sin.given()) return;
  const Types types{bit(DataType::kFloat32) | (kWideFloats & bit(problem.query_type)), "the type of query, or float32"};
  if (!contains(kWideFloats, problem.query_type)) {
    refuse("rotary_cos", cos, "not given with float8 tensors", ErrorCode::kUnsupported);
  }
  if (problem.packed_keys) refuse("rotary_cos", cos, "not given with key_offsets: packed keys are no cache");
  expect_input("rotary_cos", cos, types, {positive("positions"), positive("rotary_dim / 2")}, call.data);
  expect_input("rotary_sin", sin, {bit(cos.dtype), "the type of rotary_cos"},
               {{"positions", cos.shape[0]}, {"rotary_dim / 2", cos.shape[1]}}, call.data);
  problem.rotary_positions = cos.shape[0];
  problem.rotary_dim = 2 * cos.shape[1];
  if (problem.rotary_dim > problem.head_dim) {
    refuse("rotary_cos", cos, "of at most " + std::to_string(problem.head_dim / 2) + " pairs, half of head_dim");
  }
  if (attention.rotary_style != RotaryStyle::kInterleaved && attention.rotary_style != RotaryStyle::kHalves) {
    refuse("rotary_style", std::to_string(int(attention.rotary_style)), "interleaved (0) or halves (1)");
  }
  problem.rotary_style = attention.rotary_style;
  call.buffers().rotary_cos = vectors_of(cos);
  call.buffers().rotary_sin = vectors_of(sin);
}

}  // namespace

void refuse_caches(const Attention& attention) {
  for (const auto& [argument, tensor] :
       {Named{"cache_batch_index", attention.cache_batch_index}, Named{"page_table", attention.page_table},
        Named{"new_key", attention.new_key}, Named{"new_value", attention.new_value},
        Named{"rotary_cos", attention.rotary_cos}, Named{"rotary_sin", attention.rotary_sin}}) {
    if (!tensor.given()) continue;
    refuse(argument, tensor, "not given to backward, since caches and rotary have no gradient",
           ErrorCode::kUnsupported);
  }
}

void check_caches(Inspection& call) {
  check_cache_index(call);
  check_page_table(call);
  check_new_keys(call);
  check_rotary(call);
}

}  // namespace strobe::check
