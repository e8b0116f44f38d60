// What a problem costs on any machine: operations by the papers' convention, and bytes that must move once.
#include <algorithm>

#include "plan/plan.hpp"

namespace strobe::plan {
namespace {

/// Pairs (i, j) that causal and window leave visible, for one head of one full-length sequence.
double visible_pairs(const Problem& problem, std::int64_t query_length, std::int64_t key_length) {
  const std::int64_t shift = problem.alignment == Alignment::kBottomRight ? key_length - query_length : 0;
  double pairs = 0;
  for (std::int64_t i = 0; i < query_length; ++i) {
    const std::int64_t position = i + shift;
    std::int64_t first = 0, last = key_length;
    if (problem.causal) last = std::min(last, position + 1);
    if (problem.window_right != kUnbounded) last = std::min(last, position + problem.window_right + 1);
    if (problem.window_left != kUnbounded) first = std::max(first, position - problem.window_left);
    pairs += double(std::max<std::int64_t>(last - first, 0));
  }
  return pairs;
}

}  // namespace

Cost cost(const Problem& problem) {
  // Packed sequences: the lengths lie in a tensor that plans do not read, so the estimate takes them as equal.
  const std::int64_t sequences = std::max<std::int64_t>(problem.batch, 1);
  const std::int64_t query_length = problem.packed_queries ? problem.total_queries / sequences : problem.query_length;
  const std::int64_t key_length = problem.packed_keys ? problem.total_keys / sequences : problem.key_length;

  // FlashAttention counts causal attention as exactly half (2307.08691, section 4.1).
  const bool plain_causal = problem.causal && problem.window_left == kUnbounded && problem.window_right == kUnbounded &&
                            query_length == key_length;
  const bool banded = problem.causal || problem.window_left != kUnbounded || problem.window_right != kUnbounded;
  double pairs = double(query_length) * double(key_length);
  if (plain_causal) {
    pairs /= 2;
  } else if (banded) {
    pairs = visible_pairs(problem, query_length, key_length);
  }
  const double dims = double(problem.head_dim + problem.value_dim);
  Cost result;
  result.flops = 2.0 * pairs * dims * double(problem.batch * problem.query_heads);

  const double query_bytes = double(problem.total_queries * problem.query_heads) * double(size_of(problem.query_type));
  const double key_bytes = double(problem.total_keys * problem.kv_heads) * double(size_of(problem.key_type));
  const double output_bytes =
      double(problem.total_queries * problem.query_heads * problem.value_dim) * double(size_of(problem.output_type));
  result.bytes = query_bytes * double(problem.head_dim) + key_bytes * dims + output_bytes;
  if (problem.pass == Pass::kBackward) {
    result.flops *= 2.5;
    result.bytes = 2.0 * result.bytes + output_bytes;  // inputs and their gradients, O and dO
  }
  return result;
}

}  // namespace strobe::plan
