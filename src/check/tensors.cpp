// query, key, value, the outputs and the gradients: the tensors that give a problem its sizes.
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

constexpr std::int64_t kMaxDim = 256;
/// The one pair of larger dimensions: multi-head latent attention with absorbed projections.
constexpr std::int64_t kLatentHeadDim = 576, kLatentValueDim = 512;

void check_dims(const Inspection& call) {
  const std::int64_t head_dim = call.problem().head_dim, value_dim = call.problem().value_dim;
  if (head_dim <= kMaxDim && value_dim <= kMaxDim) return;
  if (call.problem().pass == Pass::kForward && head_dim == kLatentHeadDim && value_dim == kLatentValueDim) return;
  refuse(head_dim > kMaxDim ? "query" : "value",
         "of head_dim " + std::to_string(head_dim) + " and value_dim " + std::to_string(value_dim),
         call.problem().pass == Pass::kForward ? "of dims from 1 to 256, or 576 and 512" : "of dims from 1 to 256",
         ErrorCode::kUnsupported);
}

/// Packed rows need int32 offsets [batch + 1]; gives the batch.
std::int64_t batch_of_offsets(const char* argument, const Tensor& offsets, Data data) {
  expect_input(argument, offsets, kInt32, {positive("batch + 1")}, data);
  return offsets.shape[0] - 1;
}

void check_query(Inspection& call) {
  const Attention& attention = call.attention;
  const Tensor& query = attention.query;
  Problem& problem = call.problem();
  problem.packed_queries = attention.query_offsets.given();
  if (problem.packed_queries) {
    problem.batch = batch_of_offsets("query_offsets", attention.query_offsets, call.data);
    expect_shape("query", query, {any_size("total_queries"), positive("query_heads"), positive("head_dim")});
  } else {
    expect_shape("query", query,
                 {any_size("batch"), any_size("query_length"), positive("query_heads"), positive("head_dim")});
    problem.batch = query.shape[0];
  }
  if (problem.pass == Pass::kBackward && contains(kFloat8s, query.dtype)) {
    refuse("query", query, "float32, float16 or bfloat16, since float8 has no gradient", ErrorCode::kUnsupported);
  }
  expect_type("query", query, {kWideFloats | kFloat8s});
  expect_layout("query", query);
  expect_countable("query", query);
  expect_memory("query", query, call.data);
  const int length = query.rank - 3;
  problem.query_type = query.dtype;
  problem.query_length = query.shape[length];
  problem.query_heads = query.shape[length + 1];
  problem.head_dim = query.shape[length + 2];
  problem.total_queries = problem.packed_queries ? problem.query_length : problem.batch * problem.query_length;
  call.buffers().query = rows_of(query);
  call.buffers().query_offsets = integers_of(attention.query_offsets);
}

/// How many rows of the cache, or sequences, key has along its first axis.
Axis first_axis_of_key(const Inspection& call) {
  const Attention& attention = call.attention;
  if (attention.page_table.given()) return any_size("pages");
  if (attention.cache_batch_index.given()) return any_size("cache_batch");
  return {"batch", call.problem().batch};
}

void check_key_and_value(Inspection& call) {
  const Attention& attention = call.attention;
  const Tensor &key = attention.key, &value = attention.value;
  Problem& problem = call.problem();
  problem.packed_keys = attention.key_offsets.given();
  const Axis heads = positive("kv_heads"), head_dim{"head_dim", problem.head_dim};
  if (problem.packed_keys) {
    const std::int64_t batch = batch_of_offsets("key_offsets", attention.key_offsets, call.data);
    if (batch != problem.batch) {
      refuse("key_offsets", attention.key_offsets, "int32 [batch + 1] with batch " + std::to_string(problem.batch));
    }
    expect_shape("key", key, {any_size("total_keys"), heads, head_dim});
    expect_shape("value", value, {{"total_keys", key.shape[0]}, {"kv_heads", key.shape[1]}, positive("value_dim")});
  } else {
    const bool paged = attention.page_table.given();
    const char* rows = paged ? "page_size" : attention.cache_batch_index.given() ? "capacity" : "key_length";
    const Axis first = first_axis_of_key(call);
    const bool serves_by_default =
        problem.pass == Pass::kForward && attention.key_lengths.given() && first.size != Axis::kAnySize;
    if (serves_by_default && key.rank == 4 && key.shape[0] > first.size) {
      expect_shape("key", key, {any_size("cache_batch"), any_size("capacity"), heads, head_dim});
    } else {
      expect_shape("key", key, {first, paged ? positive(rows) : any_size(rows), heads, head_dim});
    }
    expect_shape("value", value,
                 {{first.name, key.shape[0]}, {rows, key.shape[1]}, {"kv_heads", key.shape[2]}, positive("value_dim")});
  }
  for (const auto& [argument, tensor] : {Named{"key", key}, Named{"value", value}}) {
    expect_type(argument, tensor, {bit(problem.query_type), "the type of query"});
    expect_layout(argument, tensor);
    expect_countable(argument, tensor);
    expect_memory(argument, tensor, call.data);
  }
  const int length = key.rank - 3;
  problem.key_type = key.dtype;
  problem.key_length = key.shape[length];
  problem.kv_heads = key.shape[length + 1];
  problem.value_dim = value.shape[length + 2];
  problem.total_keys = problem.packed_keys ? key.shape[0] : key.shape[0] * key.shape[1];
  if (problem.query_heads % problem.kv_heads != 0) {
    refuse("query", attention.query, "of query_heads that are a multiple of key's " + std::to_string(problem.kv_heads));
  }
  call.buffers().key = rows_of(key);
  call.buffers().value = rows_of(value);
  call.buffers().key_offsets = integers_of(attention.key_offsets);
  check_dims(call);
}

/// A tensor of query's rows and the given last axis.
void expect_like_query(const char* argument, const Tensor& tensor, Types types, std::int64_t dim, const char* dim_name,
                       const Inspection& call) {
  const Problem& problem = call.problem();
  const Axis heads{"query_heads", problem.query_heads}, last{dim_name, dim};
  if (problem.packed_queries) {
    expect_input(argument, tensor, types, {{"total_queries", problem.total_queries}, heads, last}, call.data);
  } else {
    expect_input(argument, tensor, types,
                 {{"batch", problem.batch}, {"query_length", problem.query_length}, heads, last}, call.data);
  }
}

void expect_row_scores(const char* argument, const Tensor& tensor, const Inspection& call) {
  const Problem& problem = call.problem();
  const Axis heads{"query_heads", problem.query_heads};
  if (problem.packed_queries) {
    expect_input(argument, tensor, kFloat32, {heads, {"total_queries", problem.total_queries}}, call.data);
  } else {
    expect_input(argument, tensor, kFloat32, {{"batch", problem.batch}, heads, {"query_length", problem.query_length}},
                 call.data);
  }
}

Types output_types(DataType query_type) {
  if (contains(kFloat8s, query_type)) return {kWideFloats};
  return {bit(query_type) | bit(DataType::kFloat32), "the type of query, or float32"};
}

}  // namespace

void check_tensors(Inspection& call) {
  check_query(call);
  check_key_and_value(call);
}

void check_append_tensors(Inspection& call) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  if (attention.key_offsets.given())
    refuse("key_offsets", attention.key_offsets, "not given: packed keys are no cache");
  expect_shape("key_lengths", attention.key_lengths, {any_size("batch")});
  expect_shape(
      "new_key", attention.new_key,
      {{"batch", attention.key_lengths.shape[0]}, any_size("new_length"), positive("kv_heads"), positive("head_dim")});
  problem.batch = attention.key_lengths.shape[0];
  problem.query_heads = attention.new_key.shape[2];
  problem.head_dim = attention.new_key.shape[3];
  problem.query_type = attention.key.dtype;
  expect_type("key", attention.key, {kWideFloats | kFloat8s});
  check_key_and_value(call);
}

void check_outputs(Inspection& call, const ForwardOutputs& outputs) {
  Problem& problem = call.problem();
  expect_like_query("output", outputs.output, output_types(problem.query_type), problem.value_dim, "value_dim", call);
  expect_distinct_elements("output", outputs.output);
  expect_countable("output", outputs.output);
  problem.output_type = outputs.output.dtype;
  call.buffers().output = rows_of(outputs.output);
  problem.has_lse = outputs.lse.given();
  if (!problem.has_lse) return;
  expect_row_scores("lse", outputs.lse, call);
  expect_distinct_elements("lse", outputs.lse);
  call.buffers().lse = row_scores_of(outputs.lse);
}

void check_upstream(Inspection& call, const BackwardInputs& inputs) {
  Problem& problem = call.problem();
  const Types types = output_types(problem.query_type);
  expect_like_query("output", inputs.output, types, problem.value_dim, "value_dim", call);
  expect_countable("output", inputs.output);
  expect_row_scores("lse", inputs.lse, call);
  expect_like_query("grad_output", inputs.grad_output, {bit(inputs.output.dtype), "the type of output"},
                    problem.value_dim, "value_dim", call);
  problem.output_type = inputs.output.dtype;
  problem.has_lse = true;
  problem.has_grad_lse = inputs.grad_lse.given();
  Buffers& buffers = call.buffers();
  buffers.output = rows_of(inputs.output);
  buffers.lse = row_scores_of(inputs.lse);
  buffers.grad_output = rows_of(inputs.grad_output);
  if (!problem.has_grad_lse) return;
  expect_row_scores("grad_lse", inputs.grad_lse, call);
  buffers.grad_lse = row_scores_of(inputs.grad_lse);
}

void check_gradients(Inspection& call, const Gradients& gradients) {
  const Attention& attention = call.attention;
  Problem& problem = call.problem();
  Buffers& buffers = call.buffers();
  problem.wants_grad_query = gradients.query.given();
  problem.wants_grad_key = gradients.key.given();
  problem.wants_grad_value = gradients.value.given();
  problem.wants_grad_bias = gradients.bias.given();
  problem.wants_grad_sink = gradients.sink.given();
  const Types types{bit(problem.query_type) | bit(DataType::kFloat32), "the type of query, or float32"};
  const auto expect_like = [&](const char* argument, const Tensor& tensor, const Tensor& input, Types allowed) {
    if (!input.given()) refuse(argument, tensor, std::string("not given, since the input is not"));
    const auto size = [&](int axis) { return Axis{"", input.shape[axis]}; };
    if (input.rank == 4) {
      expect_output(argument, tensor, allowed, {size(0), size(1), size(2), size(3)}, call.data);
    } else if (input.rank == 3) {
      expect_output(argument, tensor, allowed, {size(0), size(1), size(2)}, call.data);
    } else {
      expect_output(argument, tensor, allowed, {size(0)}, call.data);
    }
  };
  if (problem.wants_grad_query) expect_like("gradients.query", gradients.query, attention.query, types);
  if (problem.wants_grad_key) expect_like("gradients.key", gradients.key, attention.key, types);
  if (problem.wants_grad_value) expect_like("gradients.value", gradients.value, attention.value, types);
  if (problem.wants_grad_bias) {
    const Types bias_types{bit(attention.bias.dtype) | bit(DataType::kFloat32), "the type of bias, or float32"};
    expect_like("gradients.bias", gradients.bias, attention.bias, bias_types);
    problem.grad_bias_type = gradients.bias.dtype;
  }
  if (problem.wants_grad_sink) expect_like("gradients.sink", gradients.sink, attention.sink, kFloat32);
  if (!problem.wants_grad_query && !problem.wants_grad_key && !problem.wants_grad_value && !problem.wants_grad_bias &&
      !problem.wants_grad_sink) {
    refuse("gradients", "empty", "at least one of query, key, value, bias and sink");
  }
  buffers.grad_query = rows_of(gradients.query);
  buffers.grad_key = rows_of(gradients.key);
  buffers.grad_value = rows_of(gradients.value);
  buffers.grad_bias = scores_of(gradients.bias);
  buffers.grad_sink = vectors_of(gradients.sink);
}

}  // namespace strobe::check
