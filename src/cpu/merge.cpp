// The exact combination of attention results over disjoint sets of keys: each part weighs exp(lse_part - lse), where
// lse is the log-sum-exp of the parts' own (FlashAttention-2, arXiv 2307.08691, section 3.1).
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/half.hpp"
#include "cpu/cpu.hpp"

namespace strobe::cpu {
namespace {

constexpr std::int64_t kDims = 64;  // dims summed at a time

template <typename Convert>
void add_weighted(const std::uint16_t* from, std::int64_t count, float weight, float* sums, Convert convert) {
  for (std::int64_t d = 0; d < count; ++d) sums[d] += weight * convert(from[d]);
}

void add_part(const char* from, DataType type, std::int64_t count, float weight, float* sums) {
  const auto* narrow = reinterpret_cast<const std::uint16_t*>(from);
  switch (type) {
    case DataType::kFloat16:
      return add_weighted(narrow, count, weight, sums, float_from_half);
    case DataType::kBFloat16:
      return add_weighted(narrow, count, weight, sums, float_from_bfloat16);
    default:
      for (std::int64_t d = 0; d < count; ++d) sums[d] += weight * reinterpret_cast<const float*>(from)[d];
  }
}

/// The log-sum-exp of one row's parts: -inf where all are, NaN where one is.
float combined_lse(const float* lses, std::int64_t stride, std::int64_t splits) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t part = 0; part < splits; ++part) {
    if (!(lses[part * stride] <= largest)) largest = lses[part * stride];
  }
  if (std::isinf(largest) || std::isnan(largest)) return largest;
  double sum = 0;
  for (std::int64_t part = 0; part < splits; ++part) sum += std::exp(double(lses[part * stride]) - largest);
  return float(largest + std::log(sum));
}

/// Chunks are (batch, row): every head of it.
void merge_row(void* context, std::int64_t chunk, int) {
  const MergeProblem& problem = *static_cast<const MergeProblem*>(context);
  const Rows &parts = problem.parts, &output = problem.output;
  const std::int64_t b = chunk / problem.rows, i = chunk % problem.rows;
  const std::int64_t part_bytes = std::int64_t(size_of(parts.dtype));
  const std::int64_t output_bytes = std::int64_t(size_of(output.dtype));
  for (std::int64_t h = 0; h < problem.heads; ++h) {
    const Scores &from_lse = problem.part_lses, &to_lse = problem.lse;
    const float* lses = reinterpret_cast<const float*>(from_lse.data) + b * from_lse.batch_stride +
                        h * from_lse.head_stride + i * from_lse.row_stride;
    const float lse = combined_lse(lses, problem.part_lse_stride, problem.splits);
    if (to_lse.data != nullptr) {
      reinterpret_cast<float*>(to_lse.data)[b * to_lse.batch_stride + h * to_lse.head_stride + i * to_lse.row_stride] =
          lse;
    }
    const char* from =
        parts.data + (b * parts.batch_stride + i * parts.row_stride + h * parts.head_stride) * part_bytes;
    char* to = output.data + (b * output.batch_stride + i * output.row_stride + h * output.head_stride) * output_bytes;
    for (std::int64_t first = 0; first < problem.value_dim; first += kDims) {
      const std::int64_t count = std::min(kDims, problem.value_dim - first);
      float sums[kDims] = {};
      for (std::int64_t part = 0; part < problem.splits; ++part) {
        const float part_lse = lses[part * problem.part_lse_stride];
        if (part_lse == -std::numeric_limits<float>::infinity()) continue;
        add_part(from + (part * problem.part_stride + first) * part_bytes, parts.dtype, count,
                 float(std::exp(double(part_lse) - lse)), sums);
      }
      for (std::int64_t d = 0; d < count; ++d) store_element(to, output.dtype, first + d, sums[d]);
    }
  }
}

}  // namespace

void merge(const MergeProblem& problem, Executor& executor) {
  const double elements = double(problem.splits * problem.heads * problem.value_dim);
  executor.parallel_for(problem.batch * problem.rows, elements, merge_row, const_cast<MergeProblem*>(&problem));
}

}  // namespace strobe::cpu
