// Valid calls for the tests to spoil, and the question whether a call is refused for the right reason.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <initializer_list>
#include <list>
#include <string>
#include <vector>

#include "check/check.hpp"

namespace strobe::check {

/// Owns what the tensors of one test point to; all zeros.
class Memory {
 public:
  Tensor floats(std::initializer_list<std::int64_t> sizes, DataType type = DataType::kFloat32) {
    Tensor view = Tensor::contiguous(nullptr, type, sizes);
    view.data = blocks_.emplace_back(std::size_t(view.elements()) * size_of(type) + 1).data();
    return view;
  }
  Tensor bools(std::initializer_list<std::int64_t> sizes) { return floats(sizes, DataType::kBool); }
  Tensor integer_array(std::initializer_list<std::int64_t> sizes) { return floats(sizes, DataType::kInt32); }
  Tensor integers(std::vector<std::int32_t> values) {
    Tensor view = integer_array({std::int64_t(values.size())});
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(view.data));
    return view;
  }

 private:
  std::list<std::vector<std::byte>> blocks_;
};

constexpr std::int64_t kBatch = 2, kQueries = 3, kKeys = 5, kQueryHeads = 4, kKvHeads = 2, kHeadDim = 8, kValueDim = 6;

/// Dense tensors of the sizes above.
struct DenseCall : Memory {
  Attention attention;
  ForwardOutputs outputs;

  explicit DenseCall(DataType type = DataType::kFloat32, DataType output_type = DataType::kFloat32) {
    attention.query = floats({kBatch, kQueries, kQueryHeads, kHeadDim}, type);
    attention.key = floats({kBatch, kKeys, kKvHeads, kHeadDim}, type);
    attention.value = floats({kBatch, kKeys, kKvHeads, kValueDim}, type);
    outputs.output = floats({kBatch, kQueries, kQueryHeads, kValueDim}, output_type);
    outputs.lse = floats({kBatch, kQueryHeads, kQueries});
  }
  Checked check(Data data = Data::kRequired) const { return forward(attention, outputs, data); }
};

/// Sequences of 1 and 2 queries over 4 and 1 keys, packed.
struct PackedCall : Memory {
  Attention attention;
  ForwardOutputs outputs;

  PackedCall() {
    attention.query = floats({kQueries, kQueryHeads, kHeadDim});
    attention.key = floats({kKeys, kKvHeads, kHeadDim});
    attention.value = floats({kKeys, kKvHeads, kValueDim});
    attention.query_offsets = integers({0, 1, 3});
    attention.key_offsets = integers({0, 4, 5});
    outputs.output = floats({kQueries, kQueryHeads, kValueDim});
    outputs.lse = floats({kQueryHeads, kQueries});
  }
  Checked check(Data data = Data::kRequired) const { return forward(attention, outputs, data); }
};

/// A cache of three pages of four positions for each of two sequences, holding 5 and 8 keys.
struct PagedCall : Memory {
  static constexpr std::int64_t kPages = 7, kPageSize = 4;
  Attention attention;
  ForwardOutputs outputs;

  PagedCall() {
    attention.query = floats({kBatch, 1, kQueryHeads, kHeadDim});
    attention.key = floats({kPages, kPageSize, kKvHeads, kHeadDim});
    attention.value = floats({kPages, kPageSize, kKvHeads, kValueDim});
    attention.page_table = integers({0, 2, 4, 1, 3, 5});
    attention.page_table.rank = 2;
    attention.page_table.shape[0] = 2, attention.page_table.shape[1] = 3;
    attention.page_table.strides[0] = 3, attention.page_table.strides[1] = 1;
    attention.key_lengths = integers({5, 8});
    outputs.output = floats({kBatch, 1, kQueryHeads, kValueDim});
  }
  void add_new_keys(std::int64_t length = 1) {
    attention.new_key = floats({kBatch, length, kKvHeads, kHeadDim});
    attention.new_value = floats({kBatch, length, kKvHeads, kValueDim});
  }
  void add_rotary(std::int64_t positions = 12, std::int64_t pairs = 4) {
    attention.rotary_cos = floats({positions, pairs});
    attention.rotary_sin = floats({positions, pairs});
  }
  std::int32_t& page(int b, int i) { return static_cast<std::int32_t*>(attention.page_table.data)[b * 3 + i]; }
  Checked check(Data data = Data::kRequired) const { return forward(attention, outputs, data); }
};

/// A dense backward call.
struct BackwardCall : DenseCall {
  BackwardInputs inputs;
  Gradients gradients;

  BackwardCall() {
    inputs.output = outputs.output;
    inputs.lse = outputs.lse;
    inputs.grad_output = floats({kBatch, kQueries, kQueryHeads, kValueDim});
    gradients.query = floats({kBatch, kQueries, kQueryHeads, kHeadDim});
    gradients.key = floats({kBatch, kKeys, kKvHeads, kHeadDim});
    gradients.value = floats({kBatch, kKeys, kKvHeads, kValueDim});
  }
  Checked check(Data data = Data::kRequired) const { return backward(attention, inputs, gradients, data); }
};

/// Whether `call` throws an Error about `argument` whose demand contains `demand`.
template <typename Call>
testing::AssertionResult refuses(const Call& call, const std::string& argument, const std::string& demand,
                                 ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    call();
  } catch (const Error& error) {
    if (error.argument() == argument && error.must_be().find(demand) != std::string::npos && error.code() == code) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << "refused otherwise: " << error.what();
  }
  return testing::AssertionFailure() << "accepted";
}

#define EXPECT_REFUSED(call, ...) EXPECT_TRUE(refuses([&] { (call).check(); }, __VA_ARGS__))
/// Planning must refuse the same without looking at data.
#define EXPECT_REFUSED_ALWAYS(call, ...) \
  EXPECT_REFUSED(call, __VA_ARGS__);     \
  EXPECT_TRUE(refuses([&] { (call).check(Data::kIgnored); }, __VA_ARGS__))

}  // namespace strobe::check
