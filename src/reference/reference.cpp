// Attention by its definition, one (sequence, query head) at a time with every matrix written out.
#include "reference/reference.hpp"

#include <cmath>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "base/philox.hpp"
#include "reference/read.hpp"

namespace strobe::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class Real>
Real dot(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
  return sum;
}

template <class Real>
Real absolute_dot(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += std::abs(a[d] * b[d]);
  return sum;
}

template <class Real>
Real largest(const std::vector<Real>& row) {
  Real result = 0;
  for (Real x : row) result = std::max(result, std::abs(x));
  return result;
}

template <class Real>
void add_scaled(std::vector<Real>& sum, Real factor, const std::vector<Real>& row) {
  for (std::size_t d = 0; d < row.size(); ++d) sum[d] += factor * row[d];
}

/// What is left of x after a standard implementation wrote it to memory; the exact one loses nothing.
template <class Real>
Real round_stored(Real x, DataType type) {
  if constexpr (std::is_same_v<Real, double>) return x;
  switch (type) {
    case DataType::kFloat32:
      return x;
    case DataType::kFloat16:
      return float_from_half(half_from_float(float(x)));
    default:
      return float_from_bfloat16(bfloat16_from_float(float(x)));
  }
}

/// One query head of one sequence. Real is double for the exact result and float for the standard one, where
/// stored() rounds whatever a standard implementation would write to memory.
template <class Real>
class Head {
 public:
  using Row = std::vector<Real>;
  using Matrix = std::vector<Row>;

  Head(const Problem& problem, const Buffers& buffers, const Sequence& sequence, std::int64_t head)
      : problem_(problem), buffers_(buffers), s_(sequence), h_(head), kv_head_(head / problem.group()) {
    read_inputs();
    score();
    normalise();
  }

  Real stored(Real x) const { return round_stored(x, problem_.query_type); }
  Row stored(Row row) const {
    for (Real& x : row) x = stored(x);
    return row;
  }

  const Row& lse() const { return lse_; }
  Real score_terms() const { return score_terms_; }

  Row output(std::int64_t i) const {
    Row sum(static_cast<std::size_t>(problem_.value_dim));
    for (std::int64_t j = 0; j < s_.keys; ++j) {
      if (seen_[i][j]) add_scaled(sum, stored(p_[i][j] * keep(i, j)), v_[j]);
    }
    return stored(sum);
  }

  /// The sum of the absolute terms of row i of the output.
  Real output_terms(std::int64_t i) const {
    Real sum = 0;
    for (std::int64_t j = 0; j < s_.keys; ++j) {
      if (seen_[i][j]) sum += p_[i][j] * keep(i, j) * largest_v_[j];
    }
    return sum;
  }

  /// Gradients of this head: dq [queries], dk and dv [keys], dbias [queries, keys], dsink; and for each row of them the
  /// sum of the absolute terms that went into it.
  struct Gradients {
    Matrix dq, dk, dv, dbias;
    Real dsink = 0;
    Row dq_terms, dk_terms, dv_terms;
    Matrix dbias_terms;
    Real dsink_terms = 0, dsink_squares = 0;
  };

  Gradients gradients() const {
    const auto queries = static_cast<std::size_t>(s_.queries), keys = static_cast<std::size_t>(s_.keys);
    Gradients g{.dq = zeros(s_.queries, problem_.head_dim),
                .dk = zeros(s_.keys, problem_.head_dim),
                .dv = zeros(s_.keys, problem_.value_dim),
                .dbias = zeros(s_.queries, s_.keys),
                .dq_terms = Row(queries),
                .dk_terms = Row(keys),
                .dv_terms = Row(keys),
                .dbias_terms = zeros(s_.queries, s_.keys)};
    const Real scale = problem_.scale;
    for (std::int64_t i = 0; i < s_.queries; ++i) {
      const Row dout =
          narrow(read_row(buffers_.grad_output, query_offset(buffers_.grad_output, s_, i, h_), problem_.value_dim));
      const Row out = output(i);
      const Real largest_dout = largest(dout), largest_q = largest(q_[i]);
      const Real dlse =
          problem_.has_grad_lse ? Real(read(buffers_.grad_lse, s_.b, h_, s_.first_query + i, 0)) : Real(0);
      const Real delta = dot(dout, out) - dlse;
      const Real delta_terms = absolute_dot(dout, out) + std::abs(dlse);
      for (std::int64_t j = 0; j < s_.keys; ++j) {
        if (!seen_[i][j]) continue;
        const Real dropped = stored(p_[i][j] * keep(i, j));
        add_scaled(g.dv[j], dropped, dout);
        g.dv_terms[j] += dropped * largest_dout;

        const Real dp = stored(dot(dout, v_[j])) * keep(i, j);
        const Real ds = stored(p_[i][j] * (dp - delta));
        const Real ds_terms = p_[i][j] * (absolute_dot(dout, v_[j]) * keep(i, j) + delta_terms);
        g.dbias[i][j] = ds;
        g.dbias_terms[i][j] = ds_terms;

        const Real before_cap = stored(ds * cap_slope_[i][j] * scale);
        const Real before_cap_terms = ds_terms * cap_slope_[i][j] * std::abs(scale);
        add_scaled(g.dq[i], before_cap, k_[j]);
        add_scaled(g.dk[j], before_cap, q_[i]);
        g.dq_terms[i] += before_cap_terms * largest_k_[j];
        g.dk_terms[j] += before_cap_terms * largest_q;
      }
      if (problem_.has_sink && lse_[i] != Real(-kInfinity)) {
        const Real weight = std::exp(Real(read(buffers_.sink, 0, h_)) - lse_[i]);
        g.dsink -= weight * delta;
        g.dsink_terms += weight * delta_terms;
        g.dsink_squares += weight * delta_terms * weight * delta_terms;
      }
    }
    return g;
  }

 private:
  static Matrix zeros(std::int64_t rows, std::int64_t columns) {
    return Matrix(static_cast<std::size_t>(rows), Row(static_cast<std::size_t>(columns)));
  }
  static Row narrow(const std::vector<double>& row) { return Row(row.begin(), row.end()); }

  Real descale(const Vectors& factors) const {
    return factors.data == nullptr ? Real(1) : Real(read(factors, s_.b, kv_head_));
  }

  Real keep(std::int64_t i, std::int64_t j) const {
    if (problem_.dropout == 0) return 1;
    const bool kept = dropout_keeps(problem_.dropout_seed, problem_.dropout_offset, s_.b, h_, problem_.query_heads, i,
                                    j, dropout_threshold(problem_.dropout));
    return kept ? 1 / (1 - Real(problem_.dropout)) : Real(0);
  }

  void read_inputs() {
    const bool moves = problem_.causal || problem_.window_left != kUnbounded || problem_.window_right != kUnbounded;
    for (std::int64_t i = 0; i < s_.queries; ++i) {
      auto row = read_row(buffers_.query, query_offset(buffers_.query, s_, i, h_), problem_.head_dim,
                          descale(buffers_.query_descale));
      if (problem_.rotary_dim > 0) {
        rotate(problem_, buffers_, moves ? i + s_.shift : s_.cached_keys, row);
        for (double& x : row) x = round_stored(float(x), problem_.query_type);
      }
      q_.push_back(stored(narrow(row)));
    }
    for (std::int64_t j = 0; j < s_.keys; ++j) {
      k_.push_back(stored(narrow(read_row(buffers_.key, key_offset(problem_, buffers_, buffers_.key, s_, j, kv_head_),
                                          problem_.head_dim, descale(buffers_.key_descale)))));
      v_.push_back(
          stored(narrow(read_row(buffers_.value, key_offset(problem_, buffers_, buffers_.value, s_, j, kv_head_),
                                 problem_.value_dim, descale(buffers_.value_descale)))));
      largest_k_.push_back(largest(k_.back()));
      largest_v_.push_back(largest(v_.back()));
    }
  }

  void score() {
    const Real cap = problem_.softcap;
    scores_ = zeros(s_.queries, s_.keys);
    cap_slope_ = zeros(s_.queries, s_.keys);
    seen_.assign(static_cast<std::size_t>(s_.queries), std::vector<char>(static_cast<std::size_t>(s_.keys)));
    for (std::int64_t i = 0; i < s_.queries; ++i) {
      for (std::int64_t j = 0; j < s_.keys; ++j) {
        seen_[i][j] = visible(problem_, buffers_, s_, h_, i, j);
        if (!seen_[i][j]) continue;
        Real s = stored(Real(problem_.scale) * dot(q_[i], k_[j]));
        Real terms = std::abs(Real(problem_.scale)) * absolute_dot(q_[i], k_[j]);
        cap_slope_[i][j] = 1;
        if (cap > 0) {
          const Real x = s / cap, t = std::tanh(x);
          s = stored(cap * t);
          // 1 - t^2 has no digits left where t is close to 1; the standard way of working it out keeps that error.
          constexpr bool kExact = std::is_same_v<Real, double>;
          cap_slope_[i][j] = kExact ? 1 / (std::cosh(x) * std::cosh(x)) : 1 - t * t;
        }
        if (problem_.has_bias) {
          const Real bias = read(buffers_.bias, s_.b, h_, i, j);
          s = stored(s + bias);
          terms += std::abs(bias);
        }
        if (problem_.has_alibi) {
          const Real slope = read(buffers_.alibi_slopes, s_.b, h_), distance = std::abs(i + s_.shift - j);
          s = stored(s - slope * distance);
          terms += std::abs(slope * distance);
        }
        scores_[i][j] = s;
        if (std::isfinite(terms)) score_terms_ = std::max(score_terms_, terms);
      }
    }
  }

  void normalise() {
    p_ = zeros(s_.queries, s_.keys);
    for (std::int64_t i = 0; i < s_.queries; ++i) {
      const Real sink = problem_.has_sink ? Real(read(buffers_.sink, 0, h_)) : Real(-kInfinity);
      Real m = sink;
      for (std::int64_t j = 0; j < s_.keys; ++j) {
        if (seen_[i][j]) m = std::max(m, scores_[i][j]);
      }
      if (m == Real(-kInfinity)) {
        lse_.push_back(m);
        continue;
      }
      Real l = std::exp(sink - m);
      for (std::int64_t j = 0; j < s_.keys; ++j) {
        if (seen_[i][j]) l += p_[i][j] = std::exp(scores_[i][j] - m);
      }
      for (Real& p : p_[i]) p = stored(p / l);
      lse_.push_back(m + std::log(l));
    }
  }

  const Problem& problem_;
  const Buffers& buffers_;
  const Sequence s_;
  const std::int64_t h_, kv_head_;
  Matrix q_, k_, v_;
  Row largest_k_, largest_v_;  // elements of each row
  Matrix scores_, cap_slope_, p_;
  std::vector<std::vector<char>> seen_;  // not of bool, whose bits are slow to reach
  Row lse_;
  Real score_terms_ = 0;
};

template <class Real>
void add_to(std::vector<double>& tensor, std::int64_t offset, const std::vector<Real>& row) {
  for (std::size_t d = 0; d < row.size(); ++d) tensor[static_cast<std::size_t>(offset) + d] += double(row[d]);
}

template <class Real>
ForwardResult forward_as(const Problem& problem, const Buffers& buffers) {
  const std::int64_t heads = problem.query_heads, rows = problem.total_queries;
  ForwardResult result;
  result.output.assign(static_cast<std::size_t>(rows * heads * problem.value_dim), 0.0);
  result.lse.assign(static_cast<std::size_t>(rows * heads), -kInfinity);
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const Sequence s = sequence_of(problem, buffers, b);
    const std::int64_t first_row = problem.packed_queries ? s.first_query : b * problem.query_length;
    for (std::int64_t h = 0; h < heads; ++h) {
      const Head<Real> head(problem, buffers, s, h);
      result.score_terms = std::max(result.score_terms, double(head.score_terms()));
      for (std::int64_t i = 0; i < s.queries; ++i) {
        add_to(result.output, ((first_row + i) * heads + h) * problem.value_dim, head.output(i));
        result.output_terms = std::max(result.output_terms, double(head.output_terms(i)));
        const std::int64_t at =
            problem.packed_queries ? h * rows + s.first_query + i : (b * heads + h) * problem.query_length + i;
        result.lse[at] = head.lse()[i];
      }
    }
  }
  return result;
}

/// Index of bias[b, h, i, j] in the bias's own shape.
std::int64_t bias_index(const std::int64_t (&shape)[4], std::initializer_list<std::int64_t> position) {
  std::int64_t index = 0;
  const std::int64_t* size = shape;
  for (std::int64_t at : position) {
    index = index * *size + (*size == 1 ? 0 : at);
    ++size;
  }
  return index;
}

template <class Real>
BackwardResult backward_as(const Problem& problem, const Buffers& buffers, const std::int64_t (&bias_shape)[4]) {
  const std::int64_t heads = problem.query_heads;
  const auto sized = [](std::int64_t elements) { return std::vector<double>(static_cast<std::size_t>(elements)); };
  BackwardResult result;
  result.grad_query = sized(problem.total_queries * heads * problem.head_dim);
  result.grad_key = sized(problem.total_keys * problem.kv_heads * problem.head_dim);
  result.grad_value = sized(problem.total_keys * problem.kv_heads * problem.value_dim);
  result.grad_sink = sized(problem.has_sink ? heads : 0);
  if (problem.has_bias) result.grad_bias = sized(bias_shape[0] * bias_shape[1] * bias_shape[2] * bias_shape[3]);
  auto key_terms = sized(problem.total_keys * problem.kv_heads), value_terms = key_terms;
  auto sink_terms = result.grad_sink, bias_terms = result.grad_bias;
  auto sink_squares = sink_terms, bias_squares = bias_terms;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const Sequence s = sequence_of(problem, buffers, b);
    const std::int64_t first_query = problem.packed_queries ? s.first_query : b * problem.query_length;
    const std::int64_t first_key = problem.packed_keys ? s.first_key : b * problem.key_length;
    for (std::int64_t h = 0; h < heads; ++h) {
      const Head<Real> head(problem, buffers, s, h);
      const auto g = head.gradients();
      result.score_terms = std::max(result.score_terms, double(head.score_terms()));
      for (std::int64_t i = 0; i < s.queries; ++i) {
        add_to(result.grad_query, ((first_query + i) * heads + h) * problem.head_dim, head.stored(g.dq[i]));
        result.query_terms = std::max(result.query_terms, double(g.dq_terms[i]));
        double row_terms = 0;
        for (std::int64_t j = 0; problem.has_bias && j < s.keys; ++j) {
          const std::int64_t at = bias_index(bias_shape, {b, h, i, j});
          result.grad_bias[at] += double(g.dbias[i][j]);
          bias_terms[at] += double(g.dbias_terms[i][j]);
          row_terms += double(g.dbias_terms[i][j]);
          if (bias_shape[3] > 1 || j + 1 == s.keys) bias_squares[at] += row_terms * row_terms;
          if (bias_shape[3] > 1) row_terms = 0;
        }
      }
      for (std::int64_t j = 0; j < s.keys; ++j) {
        const std::int64_t row = (first_key + j) * problem.kv_heads + h / problem.group();
        add_to(result.grad_key, row * problem.head_dim, head.stored(g.dk[j]));
        add_to(result.grad_value, row * problem.value_dim, head.stored(g.dv[j]));
        key_terms[row] += double(g.dk_terms[j]);
        value_terms[row] += double(g.dv_terms[j]);
      }
      if (problem.has_sink) {
        result.grad_sink[h] += double(g.dsink);
        sink_terms[h] += double(g.dsink_terms);
        sink_squares[h] += double(g.dsink_squares);
      }
    }
  }
  result.key_terms = largest(key_terms);
  result.value_terms = largest(value_terms);
  result.bias_terms = largest(bias_terms);
  result.sink_terms = largest(sink_terms);
  result.bias_spread = std::sqrt(largest(bias_squares));
  result.sink_spread = std::sqrt(largest(sink_squares));
  for (auto* tensor : {&result.grad_query, &result.grad_key, &result.grad_value, &result.grad_bias}) {
    for (double& x : *tensor) x = double(round_stored(Real(x), problem.query_type));
  }
  return result;
}

}  // namespace

ForwardResult forward(const Problem& problem, const Buffers& buffers, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? forward_as<double>(problem, buffers) : forward_as<float>(problem, buffers);
}

BackwardResult backward(const Problem& problem, const Buffers& buffers, const std::int64_t (&bias_shape)[4],
                        Arithmetic arithmetic) {
  return arithmetic == Arithmetic::kExact ? backward_as<double>(problem, buffers, bias_shape)
                                          : backward_as<float>(problem, buffers, bias_shape);
}

AppendResult append(const Problem& problem, const Buffers& buffers) {
  AppendResult result;
  for (std::int64_t b = 0; b < problem.batch; ++b) {
    const std::int64_t first = read_int(buffers.key_lengths, b);
    for (std::int64_t n = 0; n < problem.new_length; ++n) {
      for (std::int64_t h = 0; h < problem.kv_heads; ++h) {
        const auto row_of = [&](const Rows& rows, std::int64_t dim) {
          return read_row(rows, b * rows.batch_stride + n * rows.row_stride + h * rows.head_stride, dim);
        };
        auto key = row_of(buffers.new_key, problem.head_dim);
        if (problem.rotary_dim > 0) rotate(problem, buffers, first + n, key);
        const auto value = row_of(buffers.new_value, problem.value_dim);
        result.key.insert(result.key.end(), key.begin(), key.end());
        result.value.insert(result.value.end(), value.begin(), value.end());
      }
    }
  }
  return result;
}

}  // namespace strobe::reference
