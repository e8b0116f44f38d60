// Generating text token by token from a paged cache: each step appends one rotated key and value to the cache and
// attends to everything so far. The same tokens in one causal call over a dense cache give the same rows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "strobe/strobe.hpp"

namespace {

using strobe::DataType, strobe::Tensor;

constexpr std::int64_t kTokens = 40, kQueryHeads = 4, kKvHeads = 2, kDim = 32;
constexpr std::int64_t kPageSize = 16, kPages = 5, kPagesPerSequence = 3;
constexpr std::int64_t kQueryRow = kQueryHeads * kDim, kKeyRow = kKvHeads * kDim;

std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

Tensor floats(const float* data, std::initializer_list<std::int64_t> shape) {
  return Tensor::contiguous(data, DataType::kFloat32, shape);
}

/// cos and sin of position * 10000^(-2 pair / dim), [positions, dim / 2] each.
struct Rotary {
  std::vector<float> cos, sin;

  Rotary() {
    for (std::int64_t position = 0; position < kTokens; ++position) {
      for (std::int64_t pair = 0; pair < kDim / 2; ++pair) {
        const double angle = double(position) * std::pow(10000.0, -2.0 * double(pair) / kDim);
        cos.push_back(float(std::cos(angle)));
        sin.push_back(float(std::sin(angle)));
      }
    }
  }
  void apply_to(strobe::Attention& attention) const {
    attention.rotary_cos = floats(cos.data(), {kTokens, kDim / 2});
    attention.rotary_sin = floats(sin.data(), {kTokens, kDim / 2});
  }
};

}  // namespace

int main() {
  const auto q = random_floats(kTokens * kQueryRow, 1);
  const auto k = random_floats(kTokens * kKeyRow, 2), v = random_floats(kTokens * kKeyRow, 3);
  const Rotary rotary;
  std::vector<float> stepwise(kTokens * kQueryRow), at_once(kTokens * kQueryRow);

  // One step per token. The sequence owns pages 4, 1 and 3 of the cache, in this order.
  std::vector<float> key_pages(kPages * kPageSize * kKeyRow), value_pages(key_pages.size());
  const std::int32_t page_table[kPagesPerSequence] = {4, 1, 3};
  std::int32_t length = 0;
  for (std::int64_t token = 0; token < kTokens; ++token, ++length) {
    strobe::Attention step;
    step.query = floats(&q[token * kQueryRow], {1, 1, kQueryHeads, kDim});
    step.key = floats(key_pages.data(), {kPages, kPageSize, kKvHeads, kDim});
    step.value = floats(value_pages.data(), {kPages, kPageSize, kKvHeads, kDim});
    step.page_table = Tensor::contiguous(page_table, DataType::kInt32, {1, kPagesPerSequence});
    step.key_lengths = Tensor::contiguous(&length, DataType::kInt32, {1});
    step.new_key = floats(&k[token * kKeyRow], {1, 1, kKvHeads, kDim});
    step.new_value = floats(&v[token * kKeyRow], {1, 1, kKvHeads, kDim});
    rotary.apply_to(step);
    strobe::forward(step, {.output = floats(&stepwise[token * kQueryRow], {1, 1, kQueryHeads, kDim}), .lse = {}});
  }

  // All tokens in one causal call that appends them to an empty dense cache.
  std::vector<float> key_cache(kTokens * kKeyRow), value_cache(key_cache.size());
  const std::int32_t nothing = 0;
  strobe::Attention prompt;
  prompt.query = floats(q.data(), {1, kTokens, kQueryHeads, kDim});
  prompt.key = floats(key_cache.data(), {1, kTokens, kKvHeads, kDim});
  prompt.value = floats(value_cache.data(), {1, kTokens, kKvHeads, kDim});
  prompt.key_lengths = Tensor::contiguous(&nothing, DataType::kInt32, {1});
  prompt.new_key = floats(k.data(), {1, kTokens, kKvHeads, kDim});
  prompt.new_value = floats(v.data(), {1, kTokens, kKvHeads, kDim});
  prompt.causal = true;
  rotary.apply_to(prompt);
  strobe::forward(prompt, {.output = floats(at_once.data(), {1, kTokens, kQueryHeads, kDim}), .lse = {}});

  float difference = 0;
  for (std::size_t i = 0; i < stepwise.size(); ++i) {
    difference = std::max(difference, std::abs(stepwise[i] - at_once[i]));
  }
  std::printf("%ld tokens, one by one and at once: largest difference %.1e\n", long(kTokens), difference);
  return difference < 1e-4f ? 0 : 1;
}
