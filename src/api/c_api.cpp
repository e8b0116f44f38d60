// The C front desk: strobe.h over the C++ API. No exception leaves a function of this file.
#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "api/c_structs.hpp"
#include "strobe/strobe.hpp"

namespace api = strobe::api;
using strobe::Error;
using strobe::ErrorCode;

struct strobe_executor {
  std::unique_ptr<strobe::Executor> executor;
};

struct strobe_plan {
  strobe::Plan plan;
  mutable std::once_flag explained;
  mutable std::string explanation;
};

namespace {

struct Failure {
  std::string message, argument, was, must_be;
};
thread_local Failure last_failure;

/// A message that does not fit into memory is replaced by a shorter one.
strobe_status fail(ErrorCode code, const char* message, const char* argument, const char* was,
                   const char* must_be) noexcept {
  try {
    last_failure = {.message = message, .argument = argument, .was = was, .must_be = must_be};
  } catch (...) {
    last_failure.message.clear();
    last_failure.argument.clear();
    last_failure.was.clear();
    last_failure.must_be.clear();
  }
  return strobe_status(code);
}

/// Runs `call` and turns what it throws into a status.
template <typename Call>
strobe_status guarded(const Call& call) noexcept {
  try {
    call();
    return STROBE_OK;
  } catch (const Error& error) {
    return fail(error.code(), error.what(), error.argument().c_str(), error.was().c_str(), error.must_be().c_str());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "memory is exhausted", "memory", "exhausted", "available");
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, error.what(), "", "", "");
  } catch (...) {
    return fail(ErrorCode::kInternal, "an unknown exception", "", "", "");
  }
}

template <typename Pointer>
Pointer* required(const char* argument, Pointer* pointer) {
  if (pointer == nullptr) throw Error(ErrorCode::kInvalidArgument, argument, "null", "a pointer");
  return pointer;
}

strobe::Tensor required_tensor(const char* argument, const strobe_tensor* tensor) {
  return api::tensor_of(*required(argument, tensor));
}

strobe::Executor* executor_in(strobe_executor* handle) { return handle != nullptr ? handle->executor.get() : nullptr; }

strobe::Execution execution_of(const strobe_execution* given) {
  if (given == nullptr) return {};
  strobe_execution own;
  const strobe_execution& from = api::known_part("execution", given, own);
  return {.executor = executor_in(from.executor),
          .workspace = from.workspace,
          .workspace_bytes = from.workspace_bytes,
          .device = {.kind = strobe::DeviceKind(from.device_kind), .index = from.device_index},
          .stream = from.stream};
}

/// A caller's functions as an Executor.
class ForeignExecutor final : public strobe::Executor {
 public:
  explicit ForeignExecutor(const strobe_executor_functions& functions) : functions_(functions) {}

  int concurrency() const override { return std::max(functions_.concurrency(functions_.user), 1); }
  void parallel_for(std::int64_t chunks, double nanoseconds_per_chunk, Body body, void* context) override {
    functions_.parallel_for(functions_.user, chunks, nanoseconds_per_chunk, body, context);
  }

 private:
  strobe_executor_functions functions_;
};

}  // namespace

extern "C" {

const char* strobe_last_error(void) { return last_failure.message.c_str(); }
const char* strobe_last_error_argument(void) { return last_failure.argument.c_str(); }
const char* strobe_last_error_was(void) { return last_failure.was.c_str(); }
const char* strobe_last_error_must_be(void) { return last_failure.must_be.c_str(); }

const char* strobe_version(void) { return strobe::version(); }

int32_t strobe_cuda_device_count(void) {
  std::int32_t count = 0;
  guarded([&] { count = strobe::cuda_device_count(); });
  return count;
}

strobe_status strobe_describe_device(int32_t device_kind, int32_t device_index, char* text, size_t text_bytes) {
  return guarded([&] {
    required("text", text);
    const std::string line = strobe::describe({.kind = strobe::DeviceKind(device_kind), .index = device_index});
    if (text_bytes > 0) text[line.copy(text, text_bytes - 1)] = '\0';
  });
}

strobe_tensor strobe_contiguous(const void* data, int32_t dtype, int32_t rank, const int64_t* shape) {
  strobe_tensor view = {};
  if (rank < 1 || rank > STROBE_MAX_RANK || shape == nullptr) return view;
  view.data = const_cast<void*>(data);
  view.dtype = dtype;
  view.rank = rank;
  std::uint64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = std::int64_t(stride);
    stride *= std::uint64_t(shape[axis]);
  }
  return view;
}

strobe_status strobe_executor_create(const strobe_executor_functions* functions, strobe_executor** executor) {
  return guarded([&] {
    strobe_executor_functions own;
    const strobe_executor_functions& from = api::known_part("functions", functions, own);
    if (from.concurrency == nullptr || from.parallel_for == nullptr) {
      throw Error(ErrorCode::kInvalidArgument, "functions", "without concurrency or parallel_for", "complete");
    }
    auto created = std::make_unique<strobe_executor>(strobe_executor{std::make_unique<ForeignExecutor>(from)});
    auto*& handle = *required("executor", executor);  // before the release: a throw in between would leak
    handle = created.release();
  });
}

strobe_status strobe_thread_pool_create(int32_t threads, strobe_executor** executor) {
  return guarded([&] {
    required("executor", executor);
    auto created = std::make_unique<strobe_executor>(strobe_executor{strobe::make_thread_pool(threads)});
    *executor = created.release();
  });
}

int32_t strobe_executor_concurrency(const strobe_executor* executor) {
  std::int32_t concurrency = 1;
  guarded([&] {
    concurrency = executor != nullptr ? executor->executor->concurrency() : strobe::default_executor().concurrency();
  });
  return concurrency;
}

void strobe_executor_destroy(strobe_executor* executor) { delete executor; }

strobe_status strobe_forward(const strobe_attention* attention, const strobe_forward_outputs* outputs,
                             const strobe_execution* execution) {
  return guarded([&] {
    const strobe::Attention problem = api::attention_of(attention);
    strobe::forward(problem, api::outputs_of(outputs), execution_of(execution));
  });
}

strobe_status strobe_backward(const strobe_attention* attention, const strobe_backward_inputs* inputs,
                              const strobe_gradients* gradients, const strobe_execution* execution) {
  return guarded([&] {
    strobe::backward(api::attention_of(attention), api::inputs_of(inputs), api::gradients_of(gradients),
                     execution_of(execution));
  });
}

strobe_status strobe_append(const strobe_attention* attention, const strobe_execution* execution) {
  return guarded([&] { strobe::append(api::attention_of(attention), execution_of(execution)); });
}

strobe_status strobe_merge(const strobe_tensor* outputs, const strobe_tensor* lses,
                           const strobe_forward_outputs* merged, const strobe_execution* execution) {
  return guarded([&] {
    const strobe::Tensor parts = required_tensor("outputs", outputs), part_lses = required_tensor("lses", lses);
    strobe::merge(parts, part_lses, api::outputs_of(merged), execution_of(execution));
  });
}

strobe_status strobe_softmax(const strobe_tensor* input, const strobe_tensor* output, int32_t axis,
                             const strobe_execution* execution) {
  return guarded([&] {
    const strobe::Tensor from = required_tensor("input", input), to = required_tensor("output", output);
    strobe::softmax(from, to, axis, execution_of(execution));
  });
}

strobe_status strobe_softmax_backward(const strobe_tensor* output, const strobe_tensor* grad_output,
                                      const strobe_tensor* grad_input, int32_t axis,
                                      const strobe_execution* execution) {
  return guarded([&] {
    const strobe::Tensor result = required_tensor("output", output);
    const strobe::Tensor upstream = required_tensor("grad_output", grad_output);
    const strobe::Tensor gradient = required_tensor("grad_input", grad_input);
    strobe::softmax_backward(result, upstream, gradient, axis, execution_of(execution));
  });
}

strobe_status strobe_plan_forward(const strobe_attention* attention, const strobe_forward_outputs* outputs,
                                  const strobe_execution* execution, strobe_plan** plan) {
  return guarded([&] {
    auto made = std::make_unique<strobe_plan>();
    made->plan = strobe::plan_forward(api::attention_of(attention), api::outputs_of(outputs), execution_of(execution));
    auto*& handle = *required("plan", plan);  // before the release: a throw in between would leak
    handle = made.release();
  });
}

strobe_status strobe_plan_backward(const strobe_attention* attention, const strobe_backward_inputs* inputs,
                                   const strobe_gradients* gradients, const strobe_execution* execution,
                                   strobe_plan** plan) {
  return guarded([&] {
    auto made = std::make_unique<strobe_plan>();
    made->plan = strobe::plan_backward(api::attention_of(attention), api::inputs_of(inputs),
                                       api::gradients_of(gradients), execution_of(execution));
    auto*& handle = *required("plan", plan);  // before the release: a throw in between would leak
    handle = made.release();
  });
}

const char* strobe_plan_kernel(const strobe_plan* plan) { return plan->plan.kernel(); }
const char* strobe_plan_why(const strobe_plan* plan) { return plan->plan.why(); }

const char* strobe_plan_explain(const strobe_plan* plan) {
  const auto explain = [&] { std::call_once(plan->explained, [&] { plan->explanation = plan->plan.explain(); }); };
  return guarded(explain) == STROBE_OK ? plan->explanation.c_str() : nullptr;
}

size_t strobe_plan_workspace_bytes(const strobe_plan* plan) { return plan->plan.workspace_bytes(); }
int64_t strobe_plan_split_keys(const strobe_plan* plan) { return plan->plan.split_keys(); }
int32_t strobe_plan_key_block(const strobe_plan* plan) { return plan->plan.key_block(); }
int32_t strobe_plan_query_tile(const strobe_plan* plan) { return plan->plan.query_tile(); }

strobe_status strobe_plan_run_forward(const strobe_plan* plan, const strobe_attention* attention,
                                      const strobe_forward_outputs* outputs, const strobe_execution* execution) {
  return guarded([&] {
    required("plan", plan)->plan.run(api::attention_of(attention), api::outputs_of(outputs), execution_of(execution));
  });
}

strobe_status strobe_plan_run_backward(const strobe_plan* plan, const strobe_attention* attention,
                                       const strobe_backward_inputs* inputs, const strobe_gradients* gradients,
                                       const strobe_execution* execution) {
  return guarded([&] {
    required("plan", plan)
        ->plan.run(api::attention_of(attention), api::inputs_of(inputs), api::gradients_of(gradients),
                   execution_of(execution));
  });
}

void strobe_plan_destroy(strobe_plan* plan) { delete plan; }

}  // extern "C"
