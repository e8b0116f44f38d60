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
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

/// Every line of `tensor` along `axis`: the offsets of its elements.
std::vector<std::vector<std::int64_t>> lines_along(const Tensor& tensor, int axis) {
  Tensor outer = tensor;
  outer.shape[axis] = 1;
  std::vector<std::vector<std::int64_t>> lines;
  for_each_element(outer, [&](const auto*, std::int64_t offset) {
    lines.emplace_back();
    for (std::int64_t n = 0; n < tensor.shape[axis]; ++n) lines.back().push_back(offset + n * tensor.strides[axis]);
  });
  return lines;
}

void fill(const Tensor& tensor, Random& random, double size) {
  for_each_element(tensor, [&](const auto*, std::int64_t offset) {
    store_element(tensor.data, tensor.dtype, offset, float(size * random.normal()));
  });
}

double tolerance(DataType type) {
  return type == DataType::kFloat32 ? 2e-7 : type == DataType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

struct SoftmaxCase {
  std::vector<std::int64_t> shape;
  int axis;
  std::int64_t gap = 0;          // unused elements between innermost rows
  bool innermost_first = false;  // the last axis has the largest stride
};

Tensor tensor_of(const SoftmaxCase& c, DataType type) {
  Tensor tensor{.dtype = type, .rank = std::int32_t(c.shape.size())};
  std::int64_t stride = 1;
  for (int n = 0; n < tensor.rank; ++n) {
    const int axis = c.innermost_first ? n : tensor.rank - 1 - n;
    tensor.shape[axis] = c.shape[static_cast<std::size_t>(axis)];
    tensor.strides[axis] = stride;
    stride = stride * tensor.shape[axis] + c.gap;
  }
  return tensor;
}

class Softmax : public testing::TestWithParam<std::tuple<int, DataType>> {
 protected:
  static const SoftmaxCase& description() {
    static const SoftmaxCase cases[] = {{{1}, 0},
                                        {{7, 33}, -1},
                                        {{7, 33}, 0},
                                        {{3, 4, 5}, 1},
                                        {{2, 3, 4, 5, 6}, 2},
                                        {{2, 3, 4, 5, 6}, -5},
                                        {{5, 3000}, 1},
                                        {{3000, 5}, 0},
                                        {{4, 100, 3}, 1, 2},
                                        {{9, 65}, 1, 3, true},
                                        {{9, 65}, 0, 0, true},
                                        {{4, 0}, 1},
                                        {{0, 4}, 1},
                                        {{1, 40000}, 1}};
    return cases[std::get<0>(GetParam())];
  }
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
    for (const auto& line : lines_along(input.tensor(), axis())) {
      double largest = -HUGE_VAL, sum = 0;
      const auto x = [&](std::int64_t at) { return double(load_element(input.tensor().data, type(), at)); };
      for (std::int64_t at : line) largest = std::max(largest, x(at));
      for (std::int64_t at : line) sum += std::exp(x(at) - largest);
      for (std::int64_t at : line) {
        const double expected = std::exp(x(at) - largest) / sum;
        // exp of a difference loses as many bits as the difference has before the point.
        const double allowed = tolerance(type()) * expected + 0x1p-22 * expected * (1.0 + largest - x(at)) + 6e-8;
        ASSERT_NEAR(load_element(output.tensor().data, type(), at), expected, allowed);
      }
    }
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
  for (const auto& line : lines_along(gradient.tensor(), axis())) {
    const auto value = [&](const Storage& storage, std::int64_t at) {
      return double(load_element(storage.tensor().data, type(), at));
    };
    double sum = 0, terms = 0;
    for (std::int64_t at : line) {
      sum += value(output, at) * value(upstream, at);
      terms += std::abs(value(output, at) * value(upstream, at));
    }
    for (std::int64_t at : line) {
      const double y = value(output, at), expected = y * (value(upstream, at) - sum);
      const double allowed = tolerance(type()) * std::abs(expected) + 0x1p-21 * std::abs(y) * (5.0 + terms) + 6e-8;
      ASSERT_NEAR(value(gradient, at), expected, allowed);
    }
  }
  EXPECT_TRUE(gradient.surroundings_intact());
}

INSTANTIATE_TEST_SUITE_P(Shapes, Softmax,
                         testing::Combine(testing::Range(0, 14), testing::Values(DataType::kFloat32, DataType::kFloat16,
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
class Merge : public testing::TestWithParam<const char*> {};

TEST_P(Merge, OfPartsIsTheWhole) {
  const auto whole = build(parse_case(GetParam()));
  const Attention& a = whole->attention;
  const std::int64_t splits = 3, keys = a.key.shape[1], batch = a.query.shape[0], rows = a.query.shape[1],
                     heads = a.query.shape[2], dim = a.value.shape[3];
  const Tensor outputs_layout{.dtype = whole->outputs.output.dtype,
                              .rank = 5,
                              .shape = {splits, batch, rows, heads, dim},
                              .strides = {batch * rows * heads * dim, rows * heads * dim, heads * dim, dim, 1}};
  const Tensor lses_layout{.dtype = DataType::kFloat32,
                           .rank = 4,
                           .shape = {splits, batch, heads, rows},
                           .strides = {batch * heads * rows, heads * rows, rows, 1}};
  const Storage outputs("outputs", outputs_layout, 0), lses("lses", lses_layout, 0);
  const auto first_axis = [](Tensor tensor, std::int64_t n) {
    tensor.data = static_cast<char*>(tensor.data) + n * tensor.strides[0] * std::int64_t(size_of(tensor.dtype));
    for (int axis = 1; axis < tensor.rank; ++axis) {
      tensor.shape[axis - 1] = tensor.shape[axis];
      tensor.strides[axis - 1] = tensor.strides[axis];
    }
    --tensor.rank;
    return tensor;
  };
  for (std::int64_t part = 0; part < splits; ++part) {
    Attention some = a;
    const std::int64_t begin = part == 0 ? 0 : keys / 4 * part, end = part == 2 ? keys : keys / 4 * (part + 1);
    for (Tensor* tensor : {&some.key, &some.value}) {
      tensor->data =
          static_cast<char*>(tensor->data) + begin * tensor->strides[1] * std::int64_t(size_of(tensor->dtype));
      tensor->shape[1] = end - begin;
    }
    forward(some, {.output = first_axis(outputs.tensor(), part), .lse = first_axis(lses.tensor(), part)});
  }
  merge(outputs.tensor(), lses.tensor(), whole->outputs, {.executor = &executor()});
  const Verdict verdict = Judge(*whole).judge();
  EXPECT_TRUE(verdict.passed()) << verdict.failures.front();
}

INSTANTIATE_TEST_SUITE_P(Cases, Merge,
                         testing::Values("q=20 k=64 heads=4/2 dim=32/24 batch=2", "q=1 k=100 heads=8/1 dim=64",
                                         "q=20 k=64 heads=4/2 dim=32 dtype=bfloat16",
                                         "q=20 k=64 heads=4/2 dim=32 dtype=float16", "q=20 k=3 heads=1 dim=16",
                                         "q=20 k=64 heads=2 dim=32 dtype=float16 output=float32 layout=padded"));

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
