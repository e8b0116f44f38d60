// The float64 definition of everything in docs/options.md: materialised, scalar, obvious. It judges the kernels and is
// never a fallback. Memory is quadratic in length. Assumes checked arguments.
#pragma once

#include <cstdint>
#include <vector>

#include "base/problem.hpp"

namespace strobe::reference {

/// float64 (or rounded, see Arithmetic) results in dense row-major order.
struct ForwardResult {
  std::vector<double> output;  // [total_queries, query_heads, value_dim]
  std::vector<double> lse;     // [batch, query_heads, query_length]; packed [query_heads, total_queries]
};

struct BackwardResult {
  std::vector<double> grad_query, grad_key, grad_value;  // in the inputs' own shapes, row-major
  std::vector<double> grad_bias;                         // in the bias's own shape
  std::vector<double> grad_sink;                         // [query_heads]
};

/// kExact: float64 throughout. kStandard: what a materialised attention in the input type computes: every tensor that
/// such an implementation stores (S, P, O, dP, dS, ...) is rounded to the input type, sums are in float32.
enum class Arithmetic { kExact, kStandard };

/// `bias_shape` is the bias's own shape for grad_bias (unused without a bias).
ForwardResult forward(const Problem& problem, const Buffers& buffers, Arithmetic arithmetic);
BackwardResult backward(const Problem& problem, const Buffers& buffers, const std::int64_t (&bias_shape)[4],
                        Arithmetic arithmetic);

}  // namespace strobe::reference
