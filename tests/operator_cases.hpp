// The operators beside attention: cases, and the definitions that judge them, for the CPU's and the GPU's tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/half.hpp"
#include "cases/instance.hpp"
#include "cases/random.hpp"
#include "cases/storage.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {

/// Every line of `tensor` along `axis`: the offsets of its elements.
inline std::vector<std::vector<std::int64_t>> lines_along(const Tensor& tensor, int axis) {
  Tensor outer = tensor;
  outer.shape[axis] = 1;
  std::vector<std::vector<std::int64_t>> lines;
  for_each_element(outer, [&](const auto*, std::int64_t offset) {
    lines.emplace_back();
    for (std::int64_t n = 0; n < tensor.shape[axis]; ++n) lines.back().push_back(offset + n * tensor.strides[axis]);
  });
  return lines;
}

inline void fill(const Tensor& tensor, Random& random, double size) {
  for_each_element(tensor, [&](const auto*, std::int64_t offset) {
    store_element(tensor.data, tensor.dtype, offset, float(size * random.normal()));
  });
}

inline double tolerance(DataType type) {
  return type == DataType::kFloat32 ? 2e-7 : type == DataType::kFloat16 ? 0x1p-11 : 0x1p-8;
}

struct SoftmaxCase {
  std::vector<std::int64_t> shape;
  int axis;
  std::int64_t gap = 0;          // unused elements between innermost rows
  bool innermost_first = false;  // the last axis has the largest stride
};

inline Tensor tensor_of(const SoftmaxCase& c, DataType type) {
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

inline const std::vector<SoftmaxCase> kSoftmaxCases = {{{1}, 0},
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
                                                       {{1, 40000}, 1},
                                                       // As threads of a GPU share rows: whole vectors and ends, by
                                                       // lanes, warps and blocks, in one stretch and in several.
                                                       {{300, 64}, 1},
                                                       {{37, 1024}, 1},
                                                       {{37, 1026}, 1},
                                                       {{1200, 17}, 1, 1},
                                                       {{5, 16384}, 1},
                                                       {{3, 50257}, 1},
                                                       {{2, 131072}, 1},
                                                       {{70, 8, 24}, 1},
                                                       {{40, 500}, 0}};

/// output = softmax of input along the axis.
inline void expect_softmax(const Tensor& input, const Tensor& output, int axis) {
  for (const auto& line : lines_along(input, axis)) {
    double largest = -HUGE_VAL, sum = 0;
    const auto x = [&](std::int64_t at) { return double(load_element(input.data, input.dtype, at)); };
    for (std::int64_t at : line) largest = std::max(largest, x(at));
    for (std::int64_t at : line) sum += std::exp(x(at) - largest);
    for (std::int64_t at : line) {
      const double expected = std::exp(x(at) - largest) / sum;
      // exp of a difference loses as many bits as the difference has before the point.
      const double allowed = tolerance(output.dtype) * expected + 0x1p-22 * expected * (1.0 + largest - x(at)) + 6e-8;
      ASSERT_NEAR(load_element(output.data, output.dtype, at), expected, allowed);
    }
  }
}

inline void expect_softmax_gradient(const Tensor& output, const Tensor& upstream, const Tensor& gradient, int axis) {
  for (const auto& line : lines_along(gradient, axis)) {
    const auto value = [&](const Tensor& tensor, std::int64_t at) {
      return double(load_element(tensor.data, gradient.dtype, at));
    };
    double sum = 0, terms = 0;
    for (std::int64_t at : line) {
      sum += value(output, at) * value(upstream, at);
      terms += std::abs(value(output, at) * value(upstream, at));
    }
    for (std::int64_t at : line) {
      const double y = value(output, at), expected = y * (value(upstream, at) - sum);
      const double allowed =
          tolerance(gradient.dtype) * std::abs(expected) + 0x1p-21 * std::abs(y) * (5.0 + terms) + 6e-8;
      ASSERT_NEAR(value(gradient, at), expected, allowed);
    }
  }
}

/// The results of attention over a few ranges of an instance's keys, computed on the CPU.
struct Parts {
  explicit Parts(const Instance& whole, std::int64_t splits = 3);

  Storage outputs, lses;

 private:
  static Tensor outputs_layout(const Instance& whole, std::int64_t splits);
  static Tensor lses_layout(const Instance& whole, std::int64_t splits);
};

inline Tensor Parts::outputs_layout(const Instance& whole, std::int64_t splits) {
  const std::int64_t* shape = whole.outputs.output.shape;
  const std::int64_t batch = shape[0], rows = shape[1], heads = shape[2], dim = shape[3];
  return {.dtype = whole.outputs.output.dtype,
          .rank = 5,
          .shape = {splits, batch, rows, heads, dim},
          .strides = {batch * rows * heads * dim, rows * heads * dim, heads * dim, dim, 1}};
}

inline Tensor Parts::lses_layout(const Instance& whole, std::int64_t splits) {
  const std::int64_t* shape = whole.outputs.output.shape;
  const std::int64_t batch = shape[0], rows = shape[1], heads = shape[2];
  return {.dtype = DataType::kFloat32,
          .rank = 4,
          .shape = {splits, batch, heads, rows},
          .strides = {batch * heads * rows, heads * rows, rows, 1}};
}

inline Parts::Parts(const Instance& whole, std::int64_t splits)
    : outputs("outputs", outputs_layout(whole, splits), 0), lses("lses", lses_layout(whole, splits), 0) {
  const std::int64_t keys = whole.attention.key.shape[1];
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
    Attention some = whole.attention;
    const std::int64_t step = keys / (splits + 1);
    const std::int64_t begin = step * part, end = part == splits - 1 ? keys : step * (part + 1);
    for (Tensor* tensor : {&some.key, &some.value}) {
      tensor->data =
          static_cast<char*>(tensor->data) + begin * tensor->strides[1] * std::int64_t(size_of(tensor->dtype));
      tensor->shape[1] = end - begin;
    }
    forward(some, {.output = first_axis(outputs.tensor(), part), .lse = first_axis(lses.tensor(), part)});
  }
}

inline constexpr const char* kMergeCases[] = {"q=20 k=64 heads=4/2 dim=32/24 batch=2",
                                              "q=1 k=100 heads=8/1 dim=64",
                                              "q=20 k=64 heads=4/2 dim=32 dtype=bfloat16",
                                              "q=20 k=64 heads=4/2 dim=32 dtype=float16",
                                              "q=20 k=3 heads=1 dim=16",
                                              "q=20 k=64 heads=2 dim=32 dtype=float16 output=float32 layout=padded",
                                              "q=7 k=64 heads=3/3 dim=20/19 dtype=bfloat16",
                                              "q=9 k=64 heads=2 dim=256 dtype=bfloat16 layout=bhsd"};
inline constexpr int kMergeSplits[] = {1, 3, 11, 40};

}  // namespace strobe::cases
