// The reference's gradients against finite differences of its own forward pass, option by option.
#include <gtest/gtest.h>

#include <cmath>

#include "base/half.hpp"
#include "cases/instance.hpp"
#include "reference/reference.hpp"

namespace strobe::cases {
namespace {

using reference::Arithmetic;

/// sum(O * dO) + sum(LSE * dLSE), whose gradients the backward pass computes.
double loss(const Instance& instance) {
  const auto& [problem, buffers] = instance.checked;
  const auto result = reference::forward(problem, buffers, Arithmetic::kExact);
  double sum = 0;
  std::size_t n = 0;
  for_each_element(instance.upstream.grad_output, [&](const auto*, std::int64_t offset) {
    const double weight = static_cast<const float*>(instance.upstream.grad_output.data)[offset];
    if (!std::isnan(weight)) sum += weight * result.output[n];
    ++n;
  });
  n = 0;
  if (instance.upstream.grad_lse.given()) {
    for_each_element(instance.upstream.grad_lse, [&](const auto*, std::int64_t offset) {
      const double weight = static_cast<const float*>(instance.upstream.grad_lse.data)[offset];
      if (std::isfinite(result.lse[n])) sum += weight * result.lse[n];
      ++n;
    });
  }
  return sum;
}

/// The slope of the loss along element `offset`; float32 storage allows steps of a few thousandths.
double slope(const Instance& instance, const Tensor& tensor, std::int64_t offset) {
  float& x = static_cast<float*>(tensor.data)[offset];
  const float original = x;
  const auto at = [&](float value) {
    x = value;
    const double result = loss(instance);
    x = original;
    return result;
  };
  // Two central differences, so that the error is of fourth order in the step.
  const float h = 0.0078125f;
  const float far_up = original + 2 * h, up = original + h, down = original - h, far_down = original - 2 * h;
  return (8 * (at(up) - at(down)) - (at(far_up) - at(far_down))) / (12.0 * h);
}

void expect_gradient(const Instance& instance, const Tensor& input, const std::vector<double>& gradient,
                     const char* name) {
  ASSERT_EQ(input.elements(), std::int64_t(gradient.size())) << name;
  std::size_t n = 0;
  for_each_element(input, [&](const auto*, std::int64_t offset) {
    const float x = static_cast<const float*>(input.data)[offset];
    const double expected = std::isfinite(x) ? slope(instance, input, offset) : 0.0;
    EXPECT_NEAR(gradient[n], expected, 2e-4 * (1.0 + std::abs(expected))) << name << " element " << n;
    ++n;
  });
}

class ReferenceGradient : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceGradient, IsTheSlopeOfTheForwardPass) {
  const auto instance = build(parse_case("pass=backward " + std::string(GetParam())));
  const Attention& a = instance->attention;
  const std::int64_t bias_shape[4] = {a.bias.shape[0], a.bias.shape[1], a.bias.shape[2], a.bias.shape[3]};
  const auto result =
      reference::backward(instance->checked.problem, instance->checked.buffers, bias_shape, Arithmetic::kExact);
  expect_gradient(*instance, a.query, result.grad_query, "query");
  expect_gradient(*instance, a.key, result.grad_key, "key");
  expect_gradient(*instance, a.value, result.grad_value, "value");
  if (a.bias.given()) expect_gradient(*instance, a.bias, result.grad_bias, "bias");
  if (a.sink.given()) expect_gradient(*instance, a.sink, result.grad_sink, "sink");
}

INSTANTIATE_TEST_SUITE_P(Options, ReferenceGradient,
                         testing::Values("q=3 k=5 heads=2/1 dim=4/3", "q=3 k=5 dim=4/4 causal grad_lse",
                                         "q=4 k=6 dim=4/4 softcap=1", "q=3 k=4 heads=2 batch=2 dim=3/3 bias=hk",
                                         "q=3 k=4 heads=2 batch=2 dim=3/3 bias=bhqk",
                                         "q=3 k=4 heads=2 dim=3/3 bias=1 softcap=2 sink",
                                         "q=3 k=5 heads=2/1 dim=4/3 sink grad_lse",
                                         "q=4 k=2 dim=3/3 causal sink grad_lse", "q=3 k=6 heads=2 dim=4/4 dropout=0.5",
                                         "q=3 k=6 heads=2/1 dim=4/4 alibi=h window=2,1 mask=hqk",
                                         "batch=2 packed_queries=3,2 packed_keys=2,4 heads=2/1 dim=3/2 causal",
                                         "batch=2 q=3 k=4 dim=3/3 key_lengths=4,2 query_lengths=2,3 grad_lse sink"));

}  // namespace
}  // namespace strobe::cases
