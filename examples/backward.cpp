// A training step: forward keeps O and the log-sum-exp of each row, backward recomputes the rest from them. The
// gradient of one weight is compared with the difference quotient of the loss, L = sum(O * G) for a fixed random G.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "strobe/strobe.hpp"

namespace {

using strobe::DataType, strobe::Tensor;

constexpr std::int64_t kLength = 48, kHeads = 2, kDim = 32, kElements = kLength * kHeads * kDim;

std::vector<float> random_floats(unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(kElements);
  for (float& value : values) value = normal(engine);
  return values;
}

Tensor view(const std::vector<float>& values) {
  return Tensor::contiguous(values.data(), DataType::kFloat32, {1, kLength, kHeads, kDim});
}

struct Layer {
  std::vector<float> q = random_floats(1), k = random_floats(2), v = random_floats(3);
  std::vector<float> output = std::vector<float>(kElements), lse = std::vector<float>(kHeads * kLength);

  strobe::Attention attention() const {
    strobe::Attention attention;
    attention.query = view(q);
    attention.key = view(k);
    attention.value = view(v);
    attention.causal = true;
    attention.softcap = 20.0f;
    return attention;
  }
  strobe::ForwardOutputs outputs() const {
    return {.output = view(output), .lse = Tensor::contiguous(lse.data(), DataType::kFloat32, {1, kHeads, kLength})};
  }
  double loss(const std::vector<float>& weights) const {
    strobe::forward(attention(), outputs());
    double sum = 0;
    for (std::int64_t i = 0; i < kElements; ++i) sum += double(output[i]) * weights[i];
    return sum;
  }
};

}  // namespace

int main() {
  Layer layer;
  const std::vector<float> grad_output = random_floats(4);
  layer.loss(grad_output);

  // Gradients that are not given are not computed.
  std::vector<float> grad_q(kElements), grad_k(kElements), grad_v(kElements);
  strobe::BackwardInputs inputs;
  inputs.output = layer.outputs().output;
  inputs.lse = layer.outputs().lse;
  inputs.grad_output = view(grad_output);
  strobe::Gradients gradients;
  gradients.query = view(grad_q);
  gradients.key = view(grad_k);
  gradients.value = view(grad_v);
  strobe::backward(layer.attention(), inputs, gradients);

  const std::int64_t element = 17 * kHeads * kDim + 5;
  const float step = 1e-2f, key = layer.k[element];
  layer.k[element] = key + step;
  const double above = layer.loss(grad_output);
  layer.k[element] = key - step;
  const double below = layer.loss(grad_output);
  const double quotient = (above - below) / (2 * step);
  std::printf("dL/dk: backward %.5f, difference quotient %.5f\n", grad_k[element], quotient);
  const bool close = std::abs(grad_k[element] - quotient) < 1e-3 + 1e-2 * std::abs(quotient);
  return close && quotient != 0.0 ? 0 : 1;
}
