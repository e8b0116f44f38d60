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
  // The sum of the absolute terms of the score and of the output row for which it is largest: what the rounding errors
  // of float32 arithmetic are relative to.
  double score_terms = 0, output_terms = 0;
};

struct BackwardResult {
  std::vector<double> grad_query, grad_key, grad_value;  // in the inputs' own shapes, row-major
  std::vector<double> grad_bias;                         // in the bias's own shape
  std::vector<double> grad_sink;                         // [query_heads]
  double score_terms = 0, query_terms = 0, key_terms = 0, value_terms = 0, bias_terms = 0, sink_terms = 0;
  // The same for terms whose errors are independent from row to row: the root of the sum of squares over rows.
  double bias_spread = 0, sink_spread = 0;
};

/// new_key and new_value as they belong in the cache, before rounding to its type: keys rotated by their positions.
struct AppendResult {
  std::vector<double> key, value;  // [batch, new_length, kv_heads, head_dim | value_dim]
};

/// kExact: float64 throughout. kStandard: what a materialised attention in the input type computes: every tensor that
/// such an implementation stores (S, P, O, dP, dS, ...) is rounded to the input type (float8 inputs: to bfloat16), sums
/// are in float32.
enum class Arithmetic { kExact, kStandard };

/// With new keys: the cache as it is after they were appended. Rotated queries are rounded to their type, as rotated
/// keys are by the cache. The gradients need only grad_output and grad_lse from upstream; output and lse are worked out
/// here. `bias_shape` is the bias's own shape (unused without a bias).
ForwardResult forward(const Problem& problem, const Buffers& buffers, Arithmetic arithmetic);
BackwardResult backward(const Problem& problem, const Buffers& buffers, const std::int64_t (&bias_shape)[4],
                        Arithmetic arithmetic);
AppendResult append(const Problem& problem, const Buffers& buffers);

}  // namespace strobe::reference
