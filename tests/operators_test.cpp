// The operators beside attention: softmax along any axis and its gradient, merge, and append by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.hpp"
#include "cases/random.hpp"
#include "cases/storage.hpp"
#include "cases/verify.hpp"
#include "executors.hpp"
#include "operator_cases.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

class Softmax : public testing::TestWithParam<std::tuple<int, DataType>> {
 protected:
  static const SoftmaxCase& description() { return kSoftmaxCases[static_cast<std::size_t>(std::get<0>(GetParam()))]; }
  static int axis() { return (description().axis + int(description().shape.size())) % int(description().shape.size()); }
  static DataType type() { return std::get<1>(GetParam()); }
};

TEST_P(Softmax, AgreesWithItsDefinition) {
  Random random(1);
  const Storage input("input", tensor_of(description(), type()), 1),
      output("output", tensor_of(description(), type()), 1);
  for (const double size : {1.0, 300.0}) {
    fill(input.tensor(), random, size);
    softmax(input.tensor(), output.tensor(), description().axis, {.executor = &executor()});
    expect_softmax(input.tensor(), output.tensor(), axis());
    EXPECT_TRUE(output.surroundings_intact());
  }
}

TEST_P(Softmax, HasTheGradientOfItsDefinition) {
  Random random(2);
  const Storage output("output", tensor_of(description(), type()), 0),
      upstream("upstream", tensor_of(description(), type()), 1),
      gradient("gradient", tensor_of(description(), type()), 1);
  fill(output.tensor(), random, 0.3);
  fill(upstream.tensor(), random, 1.0);
  softmax_backward(output.tensor(), upstream.tensor(), gradient.tensor(), description().axis,
                   {.executor = &executor()});
  expect_softmax_gradient(output.tensor(), upstream.tensor(), gradient.tensor(), axis());
  EXPECT_TRUE(gradient.surroundings_intact());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Softmax,
                         testing::Combine(testing::Range(0, int(kSoftmaxCases.size())),
                                          testing::Values(DataType::kFloat32, DataType::kFloat16,
                                                          DataType::kBFloat16)));

TEST(SoftmaxRows, OfMinusInfinityAreZero) {
  float x[] = {-HUGE_VALF, -HUGE_VALF, -HUGE_VALF, 0, -HUGE_VALF, -HUGE_VALF}, y[6];
  for (const int axis : {1, 0}) {
    const Tensor input = Tensor::contiguous(x, DataType::kFloat32, {2, 3});
    softmax(input, Tensor::contiguous(y, DataType::kFloat32, {2, 3}), axis);
    for (int n = 0; n < 6; ++n) EXPECT_EQ(y[n], n == 3 ? 1.0f : 0.0f);
  }
}

TEST(SoftmaxRows, MayBeWrittenInPlace) {
  std::vector<float> x = {1, 2, 3, 4}, y(4);
  softmax(Tensor::contiguous(x.data(), DataType::kFloat32, {4}), Tensor::contiguous(y.data(), DataType::kFloat32, {4}));
  const Tensor in_place = Tensor::contiguous(x.data(), DataType::kFloat32, {4});
  try {
    softmax(in_place, in_place);
  } catch (const Error&) {
    EXPECT_EQ(x, (std::vector<float>{1, 2, 3, 4}));
    return;
  }
  EXPECT_EQ(x, y);
}

/// Attention over ranges of the keys, merged, against attention over all of them.
class Merge : public testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(Merge, OfPartsIsTheWhole) {
  const auto [line, splits] = GetParam();
  const auto whole = build(parse_case(line));
  const Parts parts(*whole, splits);
  merge(parts.outputs.tensor(), parts.lses.tensor(), whole->outputs, {.executor = &executor()});
  const Verdict verdict = Judge(*whole).judge();
  EXPECT_TRUE(verdict.passed()) << verdict.failures.front();
}

INSTANTIATE_TEST_SUITE_P(Cases, Merge,
                         testing::Combine(testing::ValuesIn(kMergeCases), testing::ValuesIn(kMergeSplits)));

TEST(MergeRows, ThatSawNothingStayZero) {
  float outputs[2][1][2][1][1] = {{{{{9}}, {{NAN}}}}, {{{{5}}, {{NAN}}}}}, merged[2] = {}, lse[2] = {};
  const float lses[2][1][1][2] = {{{{-HUGE_VALF, -HUGE_VALF}}}, {{{1.5f, -HUGE_VALF}}}};
  outputs[0][0][0][0][0] = 0;
  outputs[0][0][1][0][0] = outputs[1][0][1][0][0] = 0;
  merge(Tensor::contiguous(outputs, DataType::kFloat32, {2, 1, 2, 1, 1}),
        Tensor::contiguous(lses, DataType::kFloat32, {2, 1, 1, 2}),
        {.output = Tensor::contiguous(merged, DataType::kFloat32, {1, 2, 1, 1}),
         .lse = Tensor::contiguous(lse, DataType::kFloat32, {1, 1, 2})});
  EXPECT_EQ(merged[0], 5.0f);
  EXPECT_EQ(merged[1], 0.0f);
  EXPECT_EQ(lse[0], 1.5f);
  EXPECT_EQ(lse[1], -HUGE_VALF);
}

TEST(Append, ThenForwardIsForwardThatAppends) {
  const char* line =
      "q=2 k=64 page=16 batch=2 key_lengths=50,3 heads=4/2 dim=32 append=2 rotary=32 causal dtype=bfloat16";
  const auto together = build(parse_case(line)), apart = build(parse_case(line));
  forward(together->attention, together->outputs);
  append(apart->attention);
  for (std::size_t n = 0; n < apart->inputs.size(); ++n) {
    const Tensor &a = apart->inputs[n].tensor(), &b = together->inputs[n].tensor();
    EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.elements()) * size_of(a.dtype)), 0)
        << apart->inputs[n].name();
  }
}

}  // namespace
}  // namespace strobe::cases
