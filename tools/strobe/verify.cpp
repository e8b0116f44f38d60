// Judging an output against the float64 reference.
#include "verify.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/half.hpp"
#include "reference/reference.hpp"

namespace strobe::tools {
namespace {

/// What float32 accumulation in another order may add to an error that is otherwise zero.
constexpr double kTiny = 1e-6;

/// |a - b|, zero for equal infinities and for two NaN, infinite where only one of them is such.
double distance(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double difference = std::abs(a - b);
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

/// Element (b, i, h, d) of output, or (b, i, h) of lse, in the reference's order.
template <typename Visit>
void for_each_row(const Problem& problem, const Visit& visit) {
  const std::int64_t sequences = problem.packed_queries ? 1 : problem.batch;
  const std::int64_t rows = problem.packed_queries ? problem.total_queries : problem.query_length;
  for (std::int64_t b = 0; b < sequences; ++b) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t h = 0; h < problem.query_heads; ++h) visit(b, i, h, rows);
    }
  }
}

}  // namespace

Verdict verify_forward(const Problem& problem, const Buffers& buffers) {
  const auto exact = reference::forward(problem, buffers, reference::Arithmetic::kExact);
  const auto standard = reference::forward(problem, buffers, reference::Arithmetic::kStandard);
  Verdict verdict;
  double standard_error = 0;
  for (std::size_t at = 0; at < exact.output.size(); ++at) {
    standard_error = std::max(standard_error, distance(standard.output[at], exact.output[at]));
  }
  verdict.output_allowed = 2 * standard_error + kTiny;
  verdict.lse_allowed = problem.query_type == DataType::kFloat32 ? 1e-5 : 1e-3;

  std::size_t at = 0;
  for_each_row(problem, [&](std::int64_t b, std::int64_t i, std::int64_t h, std::int64_t rows) {
    const Rows& output = buffers.output;
    const std::int64_t row = b * output.batch_stride + i * output.row_stride + h * output.head_stride;
    for (std::int64_t d = 0; d < problem.value_dim; ++d, ++at) {
      verdict.output_error =
          std::max(verdict.output_error, distance(load_element(output.data, output.dtype, row + d), exact.output[at]));
    }
    if (!problem.has_lse) return;
    const Scores& lse = buffers.lse;
    const std::int64_t mine = b * lse.batch_stride + h * lse.head_stride + i * lse.row_stride;
    const double wanted = exact.lse[std::size_t((b * problem.query_heads + h) * rows + i)];
    verdict.lse_error = std::max(verdict.lse_error, distance(load_element(lse.data, lse.dtype, mine), wanted));
  });
  return verdict;
}

}  // namespace strobe::tools
