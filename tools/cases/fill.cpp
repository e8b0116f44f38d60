// The values of a case's tensors: of every row that is in use and nothing else, which stays poison.
#include <algorithm>
#include <cmath>

#include "base/half.hpp"
#include "cases/build.hpp"
#include "reference/read.hpp"
#include "reference/reference.hpp"

namespace strobe::cases {
namespace {

class Filler {
 public:
  Filler(Instance& instance, Random& random) : to_(instance), c_(instance.description), random_(random) {}

  void fill() {
    fill_rows();
    fill_options();
    if (c_.poison_unseen) poison_unseen();
    if (c_.pass == Pass::kBackward) fill_upstream();
  }

 private:
  template <class Value>
  static void put_row(const Rows& rows, std::int64_t offset, std::int64_t dim, Value&& value) {
    for (std::int64_t d = 0; d < dim; ++d) store_element(rows.data, rows.dtype, offset + d, float(value(d)));
  }

  void fill_rows() {
    const Problem& problem = to_.checked.problem;
    const Buffers& buffers = to_.checked.buffers;
    const bool whole = c_.inputs == "integers";
    const double query_factor = c_.inputs != "huge" ? 1.0 : size_of(c_.dtype) == 1 ? 50.0 : 1000.0;
    const auto normal = [&](std::int64_t) { return random_.normal(); };
    const double share_of_signs = std::min(1.0, 8.0 / double(problem.head_dim));
    const auto sign = [&](std::int64_t) {
      return !random_.chance(share_of_signs) ? 0.0 : random_.chance(0.5) ? 1.0 : -1.0;
    };
    const auto small = [&](std::int64_t) { return double(random_.integer(-3, 3)); };
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      const reference::Sequence s = reference::sequence_of(problem, buffers, b);
      const auto key_at = [&](const Rows& rows, std::int64_t j, std::int64_t h) {
        return reference::key_offset(problem, buffers, rows, s, j, h);
      };
      for (std::int64_t h = 0; h < problem.kv_heads; ++h) {
        for (std::int64_t j = 0; j < s.cached_keys; ++j) {
          const std::int64_t key = key_at(buffers.key, j, h), value = key_at(buffers.value, j, h);
          whole ? put_row(buffers.key, key, problem.head_dim, sign)
                : put_row(buffers.key, key, problem.head_dim, normal);
          whole ? put_row(buffers.value, value, problem.value_dim, small)
                : put_row(buffers.value, value, problem.value_dim, normal);
        }
        for (std::int64_t n = 0; n < problem.new_length; ++n) {
          const auto at = [&](const Rows& rows) {
            return b * rows.batch_stride + n * rows.row_stride + h * rows.head_stride;
          };
          put_row(buffers.new_key, at(buffers.new_key), problem.head_dim, normal);
          put_row(buffers.new_value, at(buffers.new_value), problem.value_dim, normal);
        }
      }
      for (std::int64_t h = 0; h < problem.query_heads; ++h) {
        for (std::int64_t i = 0; i < s.queries; ++i) {
          const std::int64_t query = reference::query_offset(buffers.query, s, i, h);
          if (!whole || s.cached_keys == 0) {
            put_row(buffers.query, query, problem.head_dim,
                    [&](std::int64_t) { return query_factor * random_.normal(); });
            continue;
          }
          const std::int64_t twin = key_at(buffers.key, random_.integer(0, s.cached_keys - 1), h / problem.group());
          put_row(buffers.query, query, problem.head_dim,
                  [&](std::int64_t d) { return load_element(buffers.key.data, buffers.key.dtype, twin + d); });
        }
      }
    }
  }

  template <class Value>
  void fill(const Tensor& tensor, Value&& value) {
    if (!tensor.given()) return;
    for_each_element(tensor, [&](const std::int64_t* index, std::int64_t offset) {
      store_element(tensor.data, tensor.dtype, offset, float(value(index)));
    });
  }

  /// Elements of a [b, h, i, j] tensor that some query and key in use reach.
  template <class Put>
  void fill_scores(const Tensor& tensor, Put&& put) {
    if (!tensor.given()) return;
    const Problem& problem = to_.checked.problem;
    std::int64_t most_queries = 0, most_keys = 0;
    std::vector<reference::Sequence> sequences;
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      sequences.push_back(reference::sequence_of(problem, to_.checked.buffers, b));
      most_queries = std::max(most_queries, sequences.back().queries);
      most_keys = std::max(most_keys, sequences.back().keys);
    }
    for_each_element(tensor, [&](const std::int64_t* index, std::int64_t offset) {
      const bool shared = tensor.shape[0] == 1;
      if (index[2] < (shared ? most_queries : sequences[index[0]].queries) &&
          index[3] < (shared ? most_keys : sequences[index[0]].keys)) {
        put(offset);
      }
    });
  }

  void fill_options() {
    const Attention& a = to_.attention;
    const double infinity = std::numeric_limits<double>::infinity();
    fill_scores(a.bias, [&](std::int64_t offset) {
      const double bias = random_.chance(0.05) ? -infinity : random_.normal();
      store_element(a.bias.data, a.bias.dtype, offset, float(bias));
    });
    fill_scores(a.mask, [&](std::int64_t offset) { static_cast<char*>(a.mask.data)[offset] = random_.chance(0.7); });
    if (a.block_mask.given()) {
      for_each_element(a.block_mask, [&](const std::int64_t*, std::int64_t offset) {
        static_cast<char*>(a.block_mask.data)[offset] = random_.chance(0.5);
      });
    }
    fill(a.alibi_slopes, [&](const auto*) { return std::ldexp(1.0 + random_.uniform(), -int(random_.integer(1, 6))); });
    fill(a.sink, [&](const auto*) { return random_.normal(); });
    for (const Tensor& factor : {a.query_descale, a.key_descale, a.value_descale}) {
      fill(factor, [&](const auto*) { return 0.5 + random_.uniform(); });
    }
    const auto angle = [](const auto* index) { return double(index[0]) * std::pow(10000.0, -double(index[1]) / 32.0); };
    fill(a.rotary_cos, [&](const auto* index) { return std::cos(angle(index)); });
    fill(a.rotary_sin, [&](const auto* index) { return std::sin(angle(index)); });
    for (const Tensor& documents : {a.query_documents, a.key_documents}) {
      if (!documents.given()) continue;
      std::int32_t document = 0;
      const double chance = documents.shape[documents.rank - 1] < 256 ? 0.1 : 0.005;  // some hold whole tiles
      for_each_element(documents, [&](const std::int64_t* index, std::int64_t offset) {
        const bool starts = index[documents.rank - 1] == 0 && documents.rank == 2;
        document = starts ? 0 : document + (random_.chance(chance) ? 1 : 0);
        static_cast<std::int32_t*>(documents.data)[offset] = document;
      });
    }
  }

  void poison_unseen() {
    const Problem& problem = to_.checked.problem;
    const Buffers& buffers = to_.checked.buffers;
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      const reference::Sequence s = reference::sequence_of(problem, buffers, b);
      for (std::int64_t kv_head = 0; kv_head < problem.kv_heads; ++kv_head) {
        for (std::int64_t j = 0; j < s.cached_keys; ++j) {
          bool seen = false;
          for (std::int64_t row = 0; row < problem.group() * s.queries && !seen; ++row) {
            const std::int64_t h = kv_head * problem.group() + row / s.queries;
            seen = reference::visible(problem, buffers, s, h, row % s.queries, j);
          }
          if (seen) continue;
          for (const auto& [rows, dim] :
               {std::pair{&buffers.key, problem.head_dim}, {&buffers.value, problem.value_dim}}) {
            const auto bytes = std::int64_t(size_of(rows->dtype));
            const std::int64_t at = reference::key_offset(problem, buffers, *rows, s, j, kv_head);
            std::fill_n(rows->data + at * bytes, dim * bytes, char(kPoison));
          }
        }
      }
    }
  }

  /// O and LSE as a perfect forward pass rounds them; dO and dLSE at random for the queries in use.
  void fill_upstream() {
    const Problem& problem = to_.checked.problem;
    const Buffers& buffers = to_.checked.buffers;
    const auto forward = reference::forward(problem, buffers, reference::Arithmetic::kExact);
    std::size_t next = 0;
    fill(to_.upstream.output, [&](const auto*) { return forward.output[next++]; });
    next = 0;
    fill(to_.upstream.lse, [&](const auto*) { return forward.lse[next++]; });
    const bool whole = c_.inputs == "integers";
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      const reference::Sequence s = reference::sequence_of(problem, buffers, b);
      for (std::int64_t h = 0; h < problem.query_heads; ++h) {
        for (std::int64_t i = 0; i < s.queries; ++i) {
          const std::int64_t row = reference::query_offset(buffers.grad_output, s, i, h);
          put_row(buffers.grad_output, row, problem.value_dim,
                  [&](std::int64_t) { return whole ? double(random_.integer(-3, 3)) : random_.normal(); });
          if (!c_.grad_lse) continue;
          const std::int64_t at = reference::offset_of(buffers.grad_lse, b, h, s.first_query + i, 0);
          store_element(buffers.grad_lse.data, DataType::kFloat32, at, float(random_.normal()));
        }
      }
    }
  }

  Instance& to_;
  const Case& c_;
  Random& random_;
};

}  // namespace

void fill_tensors(Instance& instance, Random& random) { Filler(instance, random).fill(); }

}  // namespace strobe::cases
