// The C API: struct sizes of older and newer callers, statuses and messages, handles, and the same results as in C++.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "strobe/strobe.h"
#include "strobe/strobe.hpp"

namespace strobe {
namespace {

constexpr std::int64_t kLength = 20, kHeads = 2, kDim = 16, kElements = kLength * kHeads * kDim;

struct CCall {
  std::vector<float> q = values(1), k = values(2), v = values(3), o = std::vector<float>(kElements),
                     lse = std::vector<float>(kHeads * kLength);
  strobe_attention attention = STROBE_INIT(strobe_attention);
  strobe_forward_outputs outputs = STROBE_INIT(strobe_forward_outputs);

  CCall() {
    attention.query = view(q);
    attention.key = view(k);
    attention.value = view(v);
    outputs.output = view(o);
    const std::int64_t shape[3] = {1, kHeads, kLength};
    outputs.lse = strobe_contiguous(lse.data(), STROBE_FLOAT32, 3, shape);
  }
  static strobe_tensor view(const std::vector<float>& values) {
    const std::int64_t shape[4] = {1, kLength, kHeads, kDim};
    return strobe_contiguous(values.data(), STROBE_FLOAT32, 4, shape);
  }
  static std::vector<float> values(unsigned seed) {
    std::vector<float> values(kElements);
    for (float& value : values) value = float((seed = seed * 1664525u + 1013904223u) >> 8) / float(1 << 24) - 0.5f;
    return values;
  }
};

TEST(CApi, SameBitsAsCpp) {
  CCall call;
  call.attention.causal = 1;
  call.attention.has_window_left = 1;
  call.attention.window_left = 7;
  call.attention.has_scale = 1;
  call.attention.scale = 0.75f;
  ASSERT_EQ(strobe_forward(&call.attention, &call.outputs, nullptr), STROBE_OK) << strobe_last_error();

  std::vector<float> o(kElements);
  Attention attention;
  attention.query = Tensor::contiguous(call.q.data(), DataType::kFloat32, {1, kLength, kHeads, kDim});
  attention.key = Tensor::contiguous(call.k.data(), DataType::kFloat32, {1, kLength, kHeads, kDim});
  attention.value = Tensor::contiguous(call.v.data(), DataType::kFloat32, {1, kLength, kHeads, kDim});
  attention.causal = true;
  attention.window_left = 7;
  attention.scale = 0.75f;
  forward(attention,
          {.output = Tensor::contiguous(o.data(), DataType::kFloat32, {1, kLength, kHeads, kDim}), .lse = {}});
  EXPECT_EQ(o, call.o);
  EXPECT_NE(o, std::vector<float>(kElements));
}

TEST(CApi, ErrorsHaveACodeASentenceAndThreeFacts) {
  CCall call;
  call.attention.key.dtype = STROBE_BFLOAT16;
  EXPECT_EQ(strobe_forward(&call.attention, &call.outputs, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "key");
  EXPECT_STREQ(strobe_last_error_was(), "bfloat16 [1, 20, 2, 16]");
  EXPECT_STREQ(strobe_last_error_must_be(), "float32, the type of query");
  EXPECT_STREQ(strobe_last_error(), "key is bfloat16 [1, 20, 2, 16], must be float32, the type of query");
  std::thread([] { EXPECT_STREQ(strobe_last_error(), "") << "each thread has its own"; }).join();

  call = CCall();
  const std::int64_t shape[4] = {1, kLength, kHeads, 300};
  call.attention.query = call.attention.key = strobe_contiguous(nullptr, STROBE_FLOAT32, 4, shape);
  strobe_plan* plan = nullptr;
  EXPECT_EQ(strobe_plan_forward(&call.attention, &call.outputs, nullptr, &plan), STROBE_UNSUPPORTED);
  EXPECT_EQ(plan, nullptr);
}

TEST(CApi, Devices) {
  char line[16] = "unchanged";
  EXPECT_EQ(strobe_describe_device(STROBE_CPU, 0, line, sizeof line), STROBE_OK);
  EXPECT_EQ(std::string(line).rfind("CPU: ", 0), 0u);
  EXPECT_LT(std::strlen(line), sizeof line);
  EXPECT_EQ(strobe_describe_device(STROBE_CPU, 0, nullptr, 0), STROBE_INVALID_ARGUMENT);
  EXPECT_NE(strobe_describe_device(STROBE_CUDA, strobe_cuda_device_count(), line, sizeof line), STROBE_OK);

  CCall call;
  strobe_execution execution = STROBE_INIT(strobe_execution);
  execution.device_kind = STROBE_CUDA;
  execution.device_index = strobe_cuda_device_count();
  EXPECT_NE(strobe_forward(&call.attention, &call.outputs, &execution), STROBE_OK);
  // A caller whose header had no devices: what lies behind its struct is not read.
  execution.struct_size = offsetof(strobe_execution, device_kind);
  EXPECT_EQ(strobe_forward(&call.attention, &call.outputs, &execution), STROBE_OK) << strobe_last_error();
}

TEST(CApi, NullPointersAreRefused) {
  CCall call;
  EXPECT_EQ(strobe_forward(nullptr, &call.outputs, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "attention");
  EXPECT_EQ(strobe_forward(&call.attention, nullptr, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "outputs");
  EXPECT_EQ(strobe_plan_forward(&call.attention, &call.outputs, nullptr, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "plan");
  EXPECT_EQ(strobe_softmax(nullptr, nullptr, 0, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "input");
  EXPECT_EQ(strobe_thread_pool_create(2, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_EQ(strobe_plan_run_forward(nullptr, &call.attention, &call.outputs, nullptr), STROBE_INVALID_ARGUMENT);
  strobe_plan_destroy(nullptr);
  strobe_executor_destroy(nullptr);
}

TEST(CApi, StructsOfOtherVersions) {
  CCall call;
  call.attention.struct_size = 0;
  EXPECT_EQ(strobe_forward(&call.attention, &call.outputs, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(strobe_last_error_must_be()).find("STROBE_INIT"), std::string::npos);

  // An older caller ends before the caches: what lies there is not read.
  std::memset(&call.attention.cache_batch_index, 0x5a,
              sizeof(strobe_attention) - offsetof(strobe_attention, cache_batch_index));
  call.attention.struct_size = offsetof(strobe_attention, cache_batch_index);
  EXPECT_EQ(strobe_forward(&call.attention, &call.outputs, nullptr), STROBE_OK) << strobe_last_error();

  // A newer caller has fields that this library does not know; they must be zero.
  struct Newer {
    strobe_forward_outputs known = STROBE_INIT(strobe_forward_outputs);
    std::int64_t unknown = 0;
  } newer;
  CCall other;
  newer.known = other.outputs;
  newer.known.struct_size = sizeof(Newer);
  EXPECT_EQ(strobe_forward(&other.attention, &newer.known, nullptr), STROBE_OK) << strobe_last_error();
  newer.unknown = 1;
  EXPECT_EQ(strobe_forward(&other.attention, &newer.known, nullptr), STROBE_UNSUPPORTED);
}

struct Counting {
  std::int64_t chunks = 0;
};

TEST(CApi, ExecutorsByFunctionPointers) {
  Counting counting;
  strobe_executor_functions functions = STROBE_INIT(strobe_executor_functions);
  strobe_executor* executor = nullptr;
  EXPECT_EQ(strobe_executor_create(&functions, &executor), STROBE_INVALID_ARGUMENT);
  functions.user = &counting;
  functions.concurrency = [](void*) -> std::int32_t { return 3; };
  functions.parallel_for = [](void* user, std::int64_t chunks, double, strobe_body body, void* context) {
    static_cast<Counting*>(user)->chunks += chunks;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(context, chunk, std::int32_t(chunk % 3));
  };
  ASSERT_EQ(strobe_executor_create(&functions, &executor), STROBE_OK);
  EXPECT_EQ(strobe_executor_concurrency(executor), 3);
  CCall call, plain;
  strobe_execution execution = STROBE_INIT(strobe_execution);
  execution.executor = executor;
  EXPECT_EQ(strobe_forward(&call.attention, &call.outputs, &execution), STROBE_OK) << strobe_last_error();
  EXPECT_GT(counting.chunks, 0);
  EXPECT_EQ(strobe_forward(&plain.attention, &plain.outputs, nullptr), STROBE_OK);
  EXPECT_EQ(call.o, plain.o);
  strobe_executor_destroy(executor);

  EXPECT_EQ(strobe_thread_pool_create(0, &executor), STROBE_INVALID_ARGUMENT);
  ASSERT_EQ(strobe_thread_pool_create(2, &executor), STROBE_OK);
  EXPECT_EQ(strobe_executor_concurrency(executor), 2);
  strobe_executor_destroy(executor);
  EXPECT_GE(strobe_executor_concurrency(nullptr), 1);
}

TEST(CApi, PlansExplainAndRun) {
  CCall call, plain;
  strobe_plan* plan = nullptr;
  ASSERT_EQ(strobe_plan_forward(&call.attention, &call.outputs, nullptr, &plan), STROBE_OK) << strobe_last_error();
  EXPECT_EQ(std::string(strobe_plan_kernel(plan)).rfind("cpu.", 0), 0u);
  EXPECT_NE(std::string(strobe_plan_explain(plan)).find(strobe_plan_kernel(plan)), std::string::npos);
  EXPECT_STRNE(strobe_plan_why(plan), "");
  EXPECT_GT(strobe_plan_key_block(plan), 0);
  EXPECT_GT(strobe_plan_query_tile(plan), 0);
  EXPECT_EQ(strobe_plan_run_forward(plan, &call.attention, &call.outputs, nullptr), STROBE_OK);
  EXPECT_EQ(strobe_forward(&plain.attention, &plain.outputs, nullptr), STROBE_OK);
  EXPECT_EQ(call.o, plain.o);
  EXPECT_EQ(call.lse, plain.lse);
  call.attention.causal = 1;
  EXPECT_EQ(strobe_plan_run_forward(plan, &call.attention, &call.outputs, nullptr), STROBE_INVALID_ARGUMENT);
  strobe_plan_destroy(plan);
}

TEST(CApi, BackwardMergeAndSoftmax) {
  CCall call;
  ASSERT_EQ(strobe_forward(&call.attention, &call.outputs, nullptr), STROBE_OK);
  std::vector<float> grad_output = CCall::values(4), grad_query(kElements);
  strobe_backward_inputs inputs = STROBE_INIT(strobe_backward_inputs);
  inputs.output = call.outputs.output;
  inputs.lse = call.outputs.lse;
  inputs.grad_output = CCall::view(grad_output);
  strobe_gradients gradients = STROBE_INIT(strobe_gradients);
  EXPECT_EQ(strobe_backward(&call.attention, &inputs, &gradients, nullptr), STROBE_INVALID_ARGUMENT);
  EXPECT_STREQ(strobe_last_error_argument(), "gradients");
  gradients.query = CCall::view(grad_query);
  EXPECT_EQ(strobe_backward(&call.attention, &inputs, &gradients, nullptr), STROBE_OK) << strobe_last_error();
  EXPECT_NE(grad_query, std::vector<float>(kElements));

  // One part merges to itself.
  const std::int64_t parts_shape[5] = {1, 1, kLength, kHeads, kDim}, lses_shape[4] = {1, 1, kHeads, kLength};
  const strobe_tensor parts = strobe_contiguous(call.o.data(), STROBE_FLOAT32, 5, parts_shape);
  const strobe_tensor lses = strobe_contiguous(call.lse.data(), STROBE_FLOAT32, 4, lses_shape);
  CCall merged;
  EXPECT_EQ(strobe_merge(&parts, &lses, &merged.outputs, nullptr), STROBE_OK) << strobe_last_error();
  for (std::int64_t i = 0; i < kElements; ++i) EXPECT_NEAR(merged.o[i], call.o[i], 1e-6f);

  const strobe_tensor input = CCall::view(call.q), output = CCall::view(merged.o), grad = CCall::view(grad_query);
  EXPECT_EQ(strobe_softmax(&input, &output, -1, nullptr), STROBE_OK) << strobe_last_error();
  float sum = 0;
  for (std::int64_t d = 0; d < kDim; ++d) sum += merged.o[d];
  EXPECT_NEAR(sum, 1.0f, 1e-5f);
  EXPECT_EQ(strobe_softmax_backward(&output, &inputs.grad_output, &grad, -1, nullptr), STROBE_OK);
}

TEST(CApi, Contiguous) {
  const std::int64_t shape[3] = {4, 5, 6};
  const strobe_tensor view = strobe_contiguous(nullptr, STROBE_BOOL, 3, shape);
  EXPECT_EQ(view.rank, 3);
  EXPECT_EQ(view.strides[0], 30);
  EXPECT_EQ(view.strides[2], 1);
  EXPECT_EQ(strobe_contiguous(nullptr, STROBE_BOOL, 6, shape).rank, 0);
  EXPECT_STREQ(strobe_version(), version());
}

}  // namespace
}  // namespace strobe
