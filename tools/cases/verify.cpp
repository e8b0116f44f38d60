// See verify.hpp.
#include "cases/verify.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/half.hpp"
#include "reference/read.hpp"

namespace strobe::cases {
namespace {

using reference::Arithmetic;

/// Half the distance between neighbouring numbers of a type, relative to them.
double unit_roundoff(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return 0x1p-24;
    case DataType::kFloat16:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

/// A result tensor's elements in row-major order.
std::vector<double> values_of(const Tensor& tensor) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(tensor.elements()));
  for_each_element(tensor, [&](const std::int64_t*, std::int64_t offset) {
    values.push_back(load_element(tensor.data, tensor.dtype, offset));
  });
  return values;
}

/// A NaN anywhere is an infinite error.
double largest_error(const std::vector<double>& values, const std::vector<double>& exact) {
  double error = 0;
  for (std::size_t n = 0; n < exact.size(); ++n) {
    if (values[n] == exact[n]) continue;
    const double difference = std::abs(values[n] - exact[n]);
    error = std::max(error, std::isnan(difference) ? HUGE_VAL : difference);
  }
  return error;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

void measure(Verdict& verdict, const char* name, double error, double allowed) {
  verdict.measures.push_back({name, error, allowed});
  if (!(error <= allowed)) {
    verdict.failures.push_back(std::string(name) + " is off by " + number(error) + ", allowed are " + number(allowed));
  }
}

/// max |x - x64| <= 2 max |x_std - x64| + tiny, where tiny is what is left of a single rounding to the result's type
/// and of float32 arithmetic on terms of this size, with scores whose terms add up to `score_terms`.
void judge_tensor(Verdict& verdict, const char* name, const Tensor& tensor, const std::vector<double>& exact,
                  const std::vector<double>& standard, double terms, double score_terms, double noise = 0) {
  if (!tensor.given()) return;
  double size = 0;
  for (double x : exact) size = std::max(size, std::abs(x));
  const double tiny = unit_roundoff(tensor.dtype) * size + 0x1p-24 * (2.0 + score_terms) * terms + noise;
  measure(verdict, name, largest_error(values_of(tensor), exact), 2.0 * largest_error(standard, exact) + tiny);
}

/// Rows whose weights are all on one key are that key's value to the bit.
void judge_equality(Verdict& verdict, const Instance& instance, const std::vector<double>& exact,
                    const std::vector<double>& standard) {
  const Case& c = instance.description;
  const bool sums_are_exact = c.inputs == "integers" && c.bias.empty() && c.alibi.empty() && c.softcap == 0 &&
                              !c.sink && c.rotary_dim == 0 && c.append == 0 && c.descale.empty() && !c.scale &&
                              c.dropout == 0 && c.output_type.empty();
  if (!sums_are_exact) return;
  const auto values = values_of(instance.outputs.output);
  const auto dim = static_cast<std::size_t>(c.value_dim);
  for (std::size_t row = 0; row < exact.size(); row += dim) {
    bool one_key = true;
    for (std::size_t d = row; d < row + dim; ++d) {
      one_key &= standard[d] == std::round(exact[d]) && std::abs(standard[d] - exact[d]) < 1e-50;
    }
    for (std::size_t d = row; one_key && d < row + dim; ++d) {
      if (values[d] == standard[d]) continue;
      verdict.failures.push_back("output should equal " + number(standard[d]) + " exactly in row " +
                                 std::to_string(row / dim) + ", dim " + std::to_string(d - row) + ", is off by " +
                                 number(values[d] - standard[d]));
      return;
    }
  }
}

std::int64_t bias_axis(const Attention& attention, int axis) {
  return attention.bias.given() ? attention.bias.shape[axis] : 0;
}

}  // namespace

Judge::Judge(Instance& instance) : instance_(instance) {
  const Problem& problem = instance.checked.problem;
  const Buffers& buffers = instance.checked.buffers;
  if (problem.pass == Pass::kBackward) {
    const Attention& a = instance.attention;
    const std::int64_t shape[4] = {bias_axis(a, 0), bias_axis(a, 1), bias_axis(a, 2), bias_axis(a, 3)};
    exact_backward_ = reference::backward(problem, buffers, shape, Arithmetic::kExact);
    standard_backward_ = reference::backward(problem, buffers, shape, Arithmetic::kStandard);
    return;
  }
  if (problem.new_length > 0) appended_ = reference::append(problem, buffers);
  if (problem.new_length == 0) work_out_forward();
}

void Judge::work_out_forward() {
  const Problem& problem = instance_.checked.problem;
  exact_forward_ = reference::forward(problem, instance_.checked.buffers, Arithmetic::kExact);
  standard_forward_ = reference::forward(problem, instance_.checked.buffers, Arithmetic::kStandard);
}

Verdict Judge::judge() {
  Verdict verdict;
  judge_surroundings(verdict);
  if (instance_.checked.problem.pass == Pass::kForward) {
    // Attention is judged on the cache as the call left it, and the cache by itself.
    if (instance_.checked.problem.new_length > 0) {
      judge_cache(verdict);
      work_out_forward();
    }
    judge_forward(verdict);
  } else {
    judge_backward(verdict);
  }
  return verdict;
}

void Judge::judge_forward(Verdict& verdict) const {
  const ForwardOutputs& outputs = instance_.outputs;
  judge_tensor(verdict, "output", outputs.output, exact_forward_.output, standard_forward_.output,
               exact_forward_.output_terms, exact_forward_.score_terms);
  judge_equality(verdict, instance_, exact_forward_.output, standard_forward_.output);
  if (!outputs.lse.given()) return;
  const double allowed = instance_.checked.problem.query_type == DataType::kFloat32 ? 1e-5 : 1e-3;
  // Where scores are so large that float32 itself is coarser than this, eight of its roundings.
  measure(verdict, "lse", largest_error(values_of(outputs.lse), exact_forward_.lse),
          std::max(allowed, 0x1p-21 * exact_forward_.score_terms));
}

void Judge::judge_backward(Verdict& verdict) const {
  const Gradients& gradients = instance_.gradients;
  const reference::BackwardResult &exact = exact_backward_, &standard = standard_backward_;
  const auto judge = [&](const char* name, const Tensor& tensor, const auto& exact_values, const auto& standard_values,
                         double terms, double noise = 0) {
    judge_tensor(verdict, name, tensor, exact_values, standard_values, terms, exact.score_terms, noise);
  };
  judge("grad_query", gradients.query, exact.grad_query, standard.grad_query, exact.query_terms);
  judge("grad_key", gradients.key, exact.grad_key, standard.grad_key, exact.key_terms);
  judge("grad_value", gradients.value, exact.grad_value, standard.grad_value, exact.value_terms);
  const double rounding = unit_roundoff(instance_.checked.problem.query_type);
  judge("grad_bias", gradients.bias, exact.grad_bias, standard.grad_bias, exact.bias_terms,
        rounding * exact.bias_spread);
  judge("grad_sink", gradients.sink, exact.grad_sink, standard.grad_sink, exact.sink_terms,
        rounding * exact.sink_spread);
}

void Judge::judge_surroundings(Verdict& verdict) const {
  const bool appends = instance_.checked.problem.new_length > 0;
  for (const Storage& input : instance_.inputs) {
    const bool is_cache = input.name().starts_with("key") || input.name() == "value";
    if (input.changed() && !(appends && is_cache)) verdict.failures.push_back(input.name() + " was written");
  }
  for (const Storage& result : instance_.results) {
    if (!result.surroundings_intact()) verdict.failures.push_back("wrote outside of " + result.name());
  }
}

/// New rows are where they belong, rounded once; everything else in the cache is as it was.
void Judge::judge_cache(Verdict& verdict) const {
  const Problem& problem = instance_.checked.problem;
  const Buffers& buffers = instance_.checked.buffers;
  double key_error = 0, value_error = 0, size = 0;
  std::size_t next_key = 0, next_value = 0;
  std::vector<std::pair<char*, std::vector<char>>> new_rows;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const reference::Sequence s = reference::sequence_of(problem, buffers, b);
    for (std::int64_t n = 0; n < problem.new_length; ++n) {
      for (std::int64_t h = 0; h < problem.kv_heads; ++h) {
        const auto compare = [&](const Rows& rows, std::int64_t dim, const std::vector<double>& expected,
                                 std::size_t& next, double& error) {
          const std::int64_t at = reference::key_offset(problem, buffers, rows, s, s.cached_keys + n, h);
          for (std::int64_t d = 0; d < dim; ++d, ++next) {
            const double difference = std::abs(load_element(rows.data, rows.dtype, at + d) - expected[next]);
            error = std::max(error, std::isnan(difference) ? HUGE_VAL : difference);
            size = std::max(size, std::abs(expected[next]));
          }
          const auto element = std::int64_t(size_of(rows.dtype));
          char* begin = rows.data + at * element;
          new_rows.emplace_back(begin, std::vector<char>(begin, begin + dim * element));
        };
        compare(buffers.key, problem.head_dim, appended_.key, next_key, key_error);
        compare(buffers.value, problem.value_dim, appended_.value, next_value, value_error);
      }
    }
  }
  const double rotation = problem.rotary_dim > 0 ? (unit_roundoff(problem.key_type) + 0x1p-22) * size : 0.0;
  measure(verdict, "appended keys", key_error, rotation);
  measure(verdict, "appended values", value_error, 0.0);
  for (const auto& [place, bytes] : new_rows) std::fill_n(place, bytes.size(), char(kPoison));
  for (const Storage& input : instance_.inputs) {
    if (input.changed()) verdict.failures.push_back("append wrote elsewhere in " + input.name());
  }
  for (const auto& [place, bytes] : new_rows) std::copy(bytes.begin(), bytes.end(), place);
}

Verdict check_case(const Case& description, Isa isa, Executor& executor) {
  try {
    const auto instance = build(description);
    const std::string complaint = run(*instance, choose(*instance, isa, executor).decision, executor);
    Verdict verdict = Judge(*instance).judge();
    if (!complaint.empty()) verdict.failures.push_back(complaint);
    return verdict;
  } catch (const std::exception& error) {
    return {.measures = {}, .failures = {error.what()}};
  }
}

std::vector<std::string> check_case_everywhere(const Case& description, Executor& executor) {
  std::vector<std::string> failures;
  const auto report = [&](const std::string& where, const std::string& what) {
    failures.push_back(where + ": " + what + "\n  strobe check --case \"" + print_case(description) + "\"");
  };
  try {
    const auto instance = build(description);
    Judge judge(*instance);
    const plan::Kernel* last = nullptr;
    for (Isa isa : instruction_sets()) {
      const plan::Choice choice = choose(*instance, isa, executor);
      if (choice.kernel == last) continue;
      last = choice.kernel;
      reset(*instance);
      const std::string complaint = run(*instance, choice.decision, executor);
      Verdict verdict = judge.judge();
      if (!complaint.empty()) verdict.failures.push_back(complaint);
      for (const std::string& failure : verdict.failures) report(choice.kernel->name, failure);
    }
  } catch (const std::exception& error) {
    report("refused", error.what());
  }
  return failures;
}

}  // namespace strobe::cases
