// What backward reads from the forward pass and what it writes.
#include "calls.hpp"

namespace strobe::check {
namespace {

TEST(Backward, ValidCallsPass) {
  BackwardCall call;
  const Checked checked = call.check();
  EXPECT_EQ(checked.problem.pass, Pass::kBackward);
  EXPECT_TRUE(checked.problem.has_lse);
  EXPECT_TRUE(checked.problem.wants_grad_query && checked.problem.wants_grad_key && checked.problem.wants_grad_value);
  call.inputs.grad_lse = call.floats({kBatch, kQueryHeads, kQueries});
  EXPECT_TRUE(call.check().problem.has_grad_lse);
  call.gradients.query = {};
  EXPECT_FALSE(call.check().problem.wants_grad_query);
}

TEST(Backward, WhatForwardLeft) {
  BackwardCall call;
  call.inputs.output = {};
  EXPECT_REFUSED_ALWAYS(call, "output", "value_dim 6");
  call = BackwardCall();
  call.inputs.lse = {};
  EXPECT_REFUSED_ALWAYS(call, "lse", "query_heads 4");
  call = BackwardCall();
  call.inputs.grad_output = {};
  EXPECT_REFUSED_ALWAYS(call, "grad_output", "value_dim 6");
  call = BackwardCall();
  call.inputs.grad_output.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "grad_output", "the type of output");
  call = BackwardCall();
  call.inputs.grad_lse = call.floats({kBatch, kQueries, kQueryHeads});
  EXPECT_REFUSED_ALWAYS(call, "grad_lse", "[batch 2, query_heads 4, query_length 3]");
  call = BackwardCall();
  call.inputs.lse.data = nullptr;
  EXPECT_REFUSED(call, "lse", "a pointer");
}

TEST(Backward, GradientsMatchTheirInputs) {
  BackwardCall call;
  call.gradients = {};
  EXPECT_REFUSED_ALWAYS(call, "gradients", "at least one");
  call = BackwardCall();
  call.gradients.key.shape[2] = kQueryHeads;
  EXPECT_REFUSED_ALWAYS(call, "gradients.key", "[2, 5, 2, 8]");
  call = BackwardCall();
  call.gradients.value.dtype = DataType::kFloat16;
  EXPECT_REFUSED_ALWAYS(call, "gradients.value", "float32");
  call = BackwardCall();
  call.gradients.sink = call.floats({kQueryHeads});
  EXPECT_REFUSED_ALWAYS(call, "gradients.sink", "not given");
  call.attention.sink = call.floats({kQueryHeads});
  EXPECT_NO_THROW(call.check());
  call.gradients.bias = call.floats({1, 1, kQueries, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "gradients.bias", "not given");
  call.attention.bias = call.floats({1, 1, kQueries, kKeys});
  EXPECT_NO_THROW(call.check());
  call.gradients.bias = call.floats({kBatch, 1, kQueries, kKeys});
  EXPECT_REFUSED_ALWAYS(call, "gradients.bias", "[1, 1, 3, 5]");
  call = BackwardCall();
  call.gradients.query.strides[0] = 0;
  EXPECT_REFUSED_ALWAYS(call, "gradients.query", "no two elements");
}

TEST(Backward, CachesRotaryAndFloat8AreRefused) {
  BackwardCall call;
  call.attention.cache_batch_index = call.integers({0, 1});
  EXPECT_REFUSED_ALWAYS(call, "cache_batch_index", "no gradient", ErrorCode::kUnsupported);
  call = BackwardCall();
  call.attention.page_table = call.integer_array({kBatch, 1});
  EXPECT_REFUSED_ALWAYS(call, "page_table", "no gradient", ErrorCode::kUnsupported);
  call = BackwardCall();
  call.attention.rotary_cos = call.floats({5, 4});
  EXPECT_REFUSED_ALWAYS(call, "rotary_cos", "no gradient", ErrorCode::kUnsupported);
  call = BackwardCall();
  call.attention.new_key = call.floats({kBatch, 1, kKvHeads, kHeadDim});
  EXPECT_REFUSED_ALWAYS(call, "new_key", "no gradient", ErrorCode::kUnsupported);
  call = BackwardCall();
  call.attention.query.dtype = DataType::kFloat8E4M3;
  EXPECT_REFUSED_ALWAYS(call, "query", "no gradient", ErrorCode::kUnsupported);
}

TEST(Backward, PackedBiasGradientHasItsExactSize) {
  PackedCall packed;
  BackwardCall call;
  call.attention = packed.attention;
  call.inputs = {.output = packed.outputs.output,
                 .lse = packed.outputs.lse,
                 .grad_output = call.floats({kQueries, kQueryHeads, kValueDim}),
                 .grad_lse = {}};
  call.gradients = {};
  call.gradients.bias = call.floats({1, 1, 2, 4});
  call.attention.bias = call.floats({1, 1, 2, 4});
  EXPECT_NO_THROW(call.check());
  call.gradients.bias = call.floats({1, 1, 3, 4});
  call.attention.bias = call.floats({1, 1, 3, 4});
  EXPECT_REFUSED(call, "bias", "of 2 rows and 4 columns");
}

}  // namespace
}  // namespace strobe::check
