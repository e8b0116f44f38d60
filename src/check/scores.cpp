// What happens to a score between the dot product and the mask, what else enters the softmax, and dropout.
#include <cmath>
#include <string>

#include "check/rules.hpp"

namespace strobe::check {
namespace {

/// The factor of tensors whose descale is not given.
constexpr float kNoDescale = 1.0f;

void check_bias(Inspection& call) {
  const Tensor& bias = call.attention.bias;
  Problem& problem = call.problem();
  problem.has_bias = bias.given();
  if (!problem.has_bias) return;
  expect_scores_shape("bias", bias, call);
  expect_type("bias", bias,
              {bit(DataType::kFloat32) | (kWideFloats & bit(problem.query_type)), "the type of query, or float32"});
  expect_layout("bias", bias, Innermost::kOneOrZero);
  expect_memory("bias", bias, call.data);
  for (int axis = 0; axis < 4; ++axis) problem.bias_broadcasts[axis] = bias.shape[axis] == 1;
  call.buffers().bias = scores_of(bias);
}

void check_alibi(Inspection& call) {
  const Tensor& slopes = call.attention.alibi_slopes;
  Problem& problem = call.problem();
  problem.has_alibi = slopes.given();
  if (!problem.has_alibi) return;
  const Axis heads{"query_heads", problem.query_heads};
  if (slopes.rank == 1) {
    expect_input("alibi_slopes", slopes, kFloat32, {heads}, call.data);
  } else {
    expect_input("alibi_slopes", slopes, kFloat32, {{"batch", problem.batch}, heads}, call.data);
  }
  call.buffers().alibi_slopes = vectors_of(slopes);
}

void check_sink(Inspection& call) {
  const Tensor& sink = call.attention.sink;
  call.problem().has_sink = sink.given();
  if (!sink.given()) return;
  expect_input("sink", sink, kFloat32, {{"query_heads", call.problem().query_heads}}, call.data);
  call.buffers().sink = vectors_of(sink);
}

void check_dropout(Inspection& call) {
  const float dropout = call.attention.dropout;
  if (!(dropout >= 0.0f && dropout < 1.0f)) refuse("dropout", std::to_string(dropout), "at least 0 and below 1");
  call.problem().dropout = dropout;
  call.problem().dropout_seed = call.attention.dropout_seed;
  call.problem().dropout_offset = call.attention.dropout_offset;
}

Vectors check_descale(Inspection& call, const char* argument, const Tensor& descale) {
  Problem& problem = call.problem();
  if (!descale.given()) {
    if (call.data == Data::kOnDevice) return {};  // no pointer: a factor of one
    return {.data = reinterpret_cast<char*>(const_cast<float*>(&kNoDescale)), .dtype = DataType::kFloat32};
  }
  if (!contains(kFloat8s, problem.query_type))
    refuse(argument, descale, "not given unless query, key and value are float8");
  if (descale.rank == 1) {
    expect_input(argument, descale, kFloat32, {{"", 1}}, call.data);
  } else {
    expect_input(argument, descale, kFloat32, {{"batch", problem.batch}, {"kv_heads", problem.kv_heads}}, call.data);
  }
  problem.has_descale = true;
  return vectors_of(descale);
}

}  // namespace

void expect_scores_shape(const char* argument, const Tensor& tensor, const Inspection& call) {
  const Problem& problem = call.problem();
  const Axis batch = or_one("batch", problem.batch), heads = or_one("query_heads", problem.query_heads);
  const Axis rows =
      problem.packed_queries ? any_size("longest query_length") : or_one("query_length", problem.query_length);
  const Axis columns = problem.packed_keys ? any_size("longest key_length") : or_one("key_length", problem.key_length);
  expect_shape(argument, tensor, {batch, heads, rows, columns});
}

void check_scores(Inspection& call) {
  Problem& problem = call.problem();
  const Attention& attention = call.attention;
  problem.scale = attention.scale ? *attention.scale : 1.0f / std::sqrt(float(problem.head_dim));
  if (!std::isfinite(problem.scale)) refuse("scale", std::to_string(problem.scale), "finite");
  problem.softcap = attention.softcap;
  if (!(std::isfinite(problem.softcap) && problem.softcap >= 0.0f)) {
    refuse("softcap", std::to_string(problem.softcap), "finite and at least 0 (0 is none)");
  }
  check_bias(call);
  check_alibi(call);
  check_sink(call);
  check_dropout(call);
  call.buffers().query_descale = check_descale(call, "query_descale", attention.query_descale);
  call.buffers().key_descale = check_descale(call, "key_descale", attention.key_descale);
  call.buffers().value_descale = check_descale(call, "value_descale", attention.value_descale);
}

}  // namespace strobe::check
