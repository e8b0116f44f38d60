// The order in which the rules about forward, backward and append are applied.
#include <algorithm>
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

/// More workers than this never share the keys of one query.
constexpr std::int32_t kMaxSplits = 4096;
constexpr std::int64_t kMaxProduct = std::int64_t(1) << 50;

void check_execution(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  if (attention.splits < 0 || attention.splits > kMaxSplits) {
    refuse("splits", std::to_string(attention.splits), "from 0 (chosen for you) to " + std::to_string(kMaxSplits));
  }
  problem.splits = attention.splits;
  problem.batch_invariant = attention.batch_invariant;
  problem.deterministic = attention.deterministic;
}

/// Plans multiply these sizes, also where an axis is empty or a short packed sequence is reckoned as the longest.
void check_size(const Problem& problem) {
  const auto expect = [](const char* argument, std::initializer_list<std::int64_t> sizes) {
    if (product_is_at_most(kMaxProduct, {sizes.begin(), sizes.size()})) return;
    refuse(argument, "too large", "of at most 2^50 elements, batch * length * heads * dim");
  };
  const std::int64_t dim = std::max(problem.head_dim, problem.value_dim);
  expect("query", {problem.batch, problem.query_length, problem.query_heads, dim});
  expect("key", {problem.batch, problem.key_length, problem.query_heads, dim});
}

void check_options(Inspection& call) {
  check_lengths(call);
  if (call.problem().pass == Pass::kForward) check_caches(call);
  check_scores(call);
  check_visibility(call);
  check_execution(call);
  check_size(call.problem());
}

void expect_separate_from_inputs(std::initializer_list<Named> outputs, const Attention& a) {
  expect_separate(outputs, {{"query", a.query},
                            {"bias", a.bias},
                            {"mask", a.mask},
                            {"block_mask", a.block_mask},
                            {"query_offsets", a.query_offsets},
                            {"key_offsets", a.key_offsets},
                            {"query_lengths", a.query_lengths},
                            {"key_lengths", a.key_lengths},
                            {"prefix_lengths", a.prefix_lengths},
                            {"alibi_slopes", a.alibi_slopes},
                            {"sink", a.sink},
                            {"query_documents", a.query_documents},
                            {"key_documents", a.key_documents},
                            {"cache_batch_index", a.cache_batch_index},
                            {"page_table", a.page_table},
                            {"new_key", a.new_key},
                            {"new_value", a.new_value},
                            {"rotary_cos", a.rotary_cos},
                            {"rotary_sin", a.rotary_sin},
                            {"query_descale", a.query_descale},
                            {"key_descale", a.key_descale},
                            {"value_descale", a.value_descale}});
}

/// Whether a copy engine can find so many batches of so many rows and heads: each row starts at a multiple of 16 bytes
/// and is one long, and no stride goes backwards or stands still.
bool are_regular(const Rows& rows, std::int64_t dim, std::int64_t batches, std::int64_t length, std::int64_t heads) {
  constexpr std::uint64_t kBytes = 16;
  const auto bytes = std::int64_t(size_of(rows.dtype));
  std::uint64_t places = reinterpret_cast<std::uintptr_t>(rows.data) | std::uint64_t(dim * bytes);
  const std::pair<std::int64_t, std::int64_t> axes[] = {
      {rows.batch_stride, batches}, {rows.row_stride, length}, {rows.head_stride, heads}};
  for (const auto& [stride, count] : axes) {
    if (count <= 1) continue;
    if (stride <= 0) return false;
    places |= std::uint64_t(stride * bytes);
  }
  return places % kBytes == 0;
}

/// Problem::regular_rows.
bool rows_are_regular(const Problem& problem, const Buffers& buffers) {
  const std::int64_t queries = problem.packed_queries ? 1 : problem.batch;
  const std::int64_t rows_together = problem.page_size > 0 ? problem.page_size : problem.key_length;
  const std::int64_t caches = problem.packed_keys || problem.total_keys <= rows_together ? 1 : 2;  // or more
  const auto query = [&](const Rows& rows, std::int64_t dim) {
    return are_regular(rows, dim, queries, problem.query_length, problem.query_heads);
  };
  const auto key = [&](const Rows& rows, std::int64_t dim) {
    return are_regular(rows, dim, caches, problem.key_length, problem.kv_heads);
  };
  const Rows& output = problem.pass == Pass::kForward ? buffers.output : buffers.grad_output;
  return query(buffers.query, problem.head_dim) && query(output, problem.value_dim) &&
         key(buffers.key, problem.head_dim) && key(buffers.value, problem.value_dim);
}

}  // namespace

Checked forward(const Attention& attention, const ForwardOutputs& outputs, Data data) {
  Inspection call{attention, data};
  call.problem().pass = Pass::kForward;
  check_tensors(call);
  check_outputs(call, outputs);
  check_options(call);
  call.problem().regular_rows = rows_are_regular(call.problem(), call.buffers());
  if (data == Data::kIgnored) return call.checked;
  const Named output{"output", outputs.output}, lse{"lse", outputs.lse};
  const Named key{"key", attention.key}, value{"value", attention.value};
  if (call.problem().new_length > 0) {
    expect_separate_from_inputs({key, value, output, lse}, attention);
  } else {
    expect_separate_from_inputs({output, lse}, attention);
    expect_separate({output, lse}, {key, value});
  }
  if (data == Data::kRequired) check_contents(call);
  return call.checked;
}

Checked backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients, Data data) {
  Inspection call{attention, data};
  call.problem().pass = Pass::kBackward;
  refuse_caches(attention);
  check_tensors(call);
  check_upstream(call, inputs);
  check_options(call);
  check_gradients(call, gradients);
  call.problem().regular_rows = rows_are_regular(call.problem(), call.buffers());
  if (data == Data::kIgnored) return call.checked;
  const std::initializer_list<Named> outputs = {{"gradients.query", gradients.query},
                                                {"gradients.key", gradients.key},
                                                {"gradients.value", gradients.value},
                                                {"gradients.bias", gradients.bias},
                                                {"gradients.sink", gradients.sink}};
  expect_separate_from_inputs(outputs, attention);
  expect_separate(outputs, {{"key", attention.key},
                            {"value", attention.value},
                            {"output", inputs.output},
                            {"lse", inputs.lse},
                            {"grad_output", inputs.grad_output},
                            {"grad_lse", inputs.grad_lse}});
  if (data == Data::kRequired) check_contents(call);
  return call.checked;
}

Checked append(const Attention& attention, Data data) {
  // Only what appending uses is looked at: the query and its options stay out.
  Attention cache;
  cache.key = attention.key;
  cache.value = attention.value;
  cache.key_offsets = attention.key_offsets;
  cache.key_lengths = attention.key_lengths;
  cache.cache_batch_index = attention.cache_batch_index;
  cache.page_table = attention.page_table;
  cache.new_key = attention.new_key;
  cache.new_value = attention.new_value;
  cache.rotary_cos = attention.rotary_cos;
  cache.rotary_sin = attention.rotary_sin;
  cache.rotary_style = attention.rotary_style;
  Inspection call{cache, data};
  check_append_tensors(call);
  check_lengths(call);
  check_caches(call);
  expect_separate_from_inputs({{"key", cache.key}, {"value", cache.value}}, cache);
  if (data == Data::kRequired) check_contents(call);
  return call.checked;
}

}  // namespace strobe::check
