// Causal attention of eight query heads over two KV heads (grouped queries), in ten lines of Strobe; then one row of
// the result is computed by hand, straight from the definition, and compared.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "strobe/strobe.hpp"

namespace {

constexpr std::int64_t kBatch = 1, kLength = 100, kQueryHeads = 8, kKvHeads = 2, kHeadDim = 64;

std::vector<float> random_floats(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

/// Row i of query head h: softmax(q_i . k_j / sqrt(head_dim)) over the keys j <= i, times the values.
std::vector<float> row_by_hand(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v,
                               std::int64_t i, std::int64_t h) {
  const std::int64_t kv_head = h / (kQueryHeads / kKvHeads);
  const float* query = &q[(i * kQueryHeads + h) * kHeadDim];
  std::vector<double> output(kHeadDim);
  double sum = 0;
  for (std::int64_t j = 0; j <= i; ++j) {
    const std::int64_t row = (j * kKvHeads + kv_head) * kHeadDim;
    double score = 0;
    for (std::int64_t d = 0; d < kHeadDim; ++d) score += double(query[d]) * k[row + d];
    const double weight = std::exp(score / std::sqrt(double(kHeadDim)));
    for (std::int64_t d = 0; d < kHeadDim; ++d) output[d] += weight * v[row + d];
    sum += weight;
  }
  std::vector<float> rounded(kHeadDim);
  std::transform(output.begin(), output.end(), rounded.begin(), [&](double value) { return float(value / sum); });
  return rounded;
}

}  // namespace

int main() {
  const auto q = random_floats(kBatch * kLength * kQueryHeads * kHeadDim, 1);
  const auto k = random_floats(kBatch * kLength * kKvHeads * kHeadDim, 2);
  const auto v = random_floats(kBatch * kLength * kKvHeads * kHeadDim, 3);
  std::vector<float> o(q.size()), lse(kBatch * kQueryHeads * kLength);

  // Tensors are views [batch, length, heads, dim] of memory that stays the caller's; any strides will do.
  using strobe::DataType, strobe::Tensor;
  strobe::Attention attention;
  attention.query = Tensor::contiguous(q.data(), DataType::kFloat32, {kBatch, kLength, kQueryHeads, kHeadDim});
  attention.key = Tensor::contiguous(k.data(), DataType::kFloat32, {kBatch, kLength, kKvHeads, kHeadDim});
  attention.value = Tensor::contiguous(v.data(), DataType::kFloat32, {kBatch, kLength, kKvHeads, kHeadDim});
  attention.causal = true;
  strobe::ForwardOutputs outputs;
  outputs.output = Tensor::contiguous(o.data(), DataType::kFloat32, {kBatch, kLength, kQueryHeads, kHeadDim});
  outputs.lse = Tensor::contiguous(lse.data(), DataType::kFloat32, {kBatch, kQueryHeads, kLength});
  try {
    strobe::forward(attention, outputs);
  } catch (const strobe::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }

  const std::int64_t i = kLength - 1, h = 5;
  const std::vector<float> expected = row_by_hand(q, k, v, i, h);
  float error = 0;
  for (std::int64_t d = 0; d < kHeadDim; ++d) {
    error = std::max(error, std::abs(expected[d] - o[(i * kQueryHeads + h) * kHeadDim + d]));
  }
  std::printf("query %ld of head %ld: log-sum-exp %.4f, largest difference from the definition %.1e\n", long(i),
              long(h), lse[h * kLength + i], error);
  return error < 1e-5f ? 0 : 1;
}
