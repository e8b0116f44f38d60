// Builds the tensors of a case: shapes and layouts first, then index tensors, then, read back through the library's own
// checks, the values of every row that is in use. All else stays poison.
#include "cases/instance.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.hpp"
#include "cases/random.hpp"
#include "reference/read.hpp"
#include "reference/reference.hpp"

namespace strobe::cases {
namespace {

using Shape = std::vector<std::int64_t>;

Tensor contiguous(DataType dtype, const Shape& shape) {
  Tensor view{.dtype = dtype};
  for (std::int64_t size : shape) view.shape[view.rank++] = size;
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.strides[axis] = stride;
    stride *= view.shape[axis];
  }
  return view;
}

/// A tensor [(batch,) rows, heads, dim] stored as the case's layout says.
Tensor rows_tensor(const std::string& layout, DataType dtype, const Shape& shape) {
  Tensor view = contiguous(dtype, shape);
  const int first = view.rank - 3;
  const std::int64_t rows = shape[first], heads = shape[first + 1], dim = shape[first + 2];
  std::int64_t& row_stride = view.strides[first];
  std::int64_t& head_stride = view.strides[first + 1];
  if (layout == "bhsd") {
    row_stride = dim;
    head_stride = rows * dim;
  } else if (layout == "padded") {
    head_stride = dim + 3;
    row_stride = heads * head_stride + 5;
    if (first > 0) view.strides[0] = rows * row_stride + 7;
  }
  return view;
}

Tensor slice_last(Tensor whole, std::int64_t begin, std::int64_t size) {
  whole.shape[whole.rank - 1] = size;
  whole.data = static_cast<char*>(whole.data) + begin * std::int64_t(size_of(whole.dtype));
  return whole;
}

class Builder {
 public:
  Builder(Instance& instance, const Case& c) : to_(instance), c_(c), random_(c.seed) {}

  void build() {
    to_.description = c_;
    describe_rows();
    describe_options();
    describe_results();
    const bool forward = c_.pass == Pass::kForward;
    to_.checked = forward ? check::forward(to_.attention, to_.outputs, check::Data::kRequired)
                          : check::backward(to_.attention, to_.upstream, to_.gradients, check::Data::kRequired);
    fill_rows();
    fill_options();
    if (!forward) fill_upstream();
    for (Storage& storage : to_.inputs) storage.remember();
    for (Storage& storage : to_.results) storage.remember();
  }

 private:
  Tensor add(std::deque<Storage>& list, const char* name, const Tensor& layout) {
    list.emplace_back(name, layout, c_.layout == "padded" ? 1 : 0);
    return list.back().tensor();
  }
  Tensor input(const char* name, const Tensor& layout) { return add(to_.inputs, name, layout); }
  Tensor result(const char* name, const Tensor& layout) { return add(to_.results, name, layout); }

  Tensor integers(const char* name, const Case::Integers& values) {
    const Tensor tensor = input(name, contiguous(DataType::kInt32, {std::int64_t(values.size())}));
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(tensor.data));
    return tensor;
  }
  Tensor offsets(const char* name, const Case::Integers& counts) {
    Case::Integers sums(counts.size() + 1);
    std::partial_sum(counts.begin(), counts.end(), sums.begin() + 1);
    return integers(name, sums);
  }

  std::vector<std::int64_t> shuffled(std::int64_t count) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    for (std::int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[random_.integer(0, i)]);
    return order;
  }

  Shape query_shape(std::int64_t heads, std::int64_t dim) const {
    if (c_.packed_queries.empty()) return {c_.batch, c_.q, heads, dim};
    return {std::reduce(c_.packed_queries.begin(), c_.packed_queries.end()), heads, dim};
  }
  Shape key_shape(std::int64_t dim) const {
    if (c_.page_size > 0) return {pages(), c_.page_size, c_.kv_heads, dim};
    if (!c_.packed_keys.empty()) {
      return {std::reduce(c_.packed_keys.begin(), c_.packed_keys.end()), c_.kv_heads, dim};
    }
    return {c_.cache_rows > 0 ? c_.cache_rows : c_.batch, c_.k, c_.kv_heads, dim};
  }
  std::int64_t pages() const { return c_.batch * (c_.k / c_.page_size) + 2; }

  void describe_rows() {
    Attention& a = to_.attention;
    a.query = input("query", rows_tensor(c_.layout, c_.dtype, query_shape(c_.query_heads, c_.head_dim)));
    if (c_.layout == "fused") {
      const Tensor both = input("key and value", contiguous(c_.dtype, key_shape(c_.head_dim + c_.value_dim)));
      a.key = slice_last(both, 0, c_.head_dim);
      a.value = slice_last(both, c_.head_dim, c_.value_dim);
    } else {
      a.key = input("key", rows_tensor(c_.layout, c_.dtype, key_shape(c_.head_dim)));
      a.value = input("value", rows_tensor(c_.layout, c_.dtype, key_shape(c_.value_dim)));
    }
    if (!c_.packed_queries.empty()) a.query_offsets = offsets("query_offsets", c_.packed_queries);
    if (!c_.packed_keys.empty()) a.key_offsets = offsets("key_offsets", c_.packed_keys);
    if (!c_.query_lengths.empty()) a.query_lengths = integers("query_lengths", c_.query_lengths);
    if (!c_.key_lengths.empty()) a.key_lengths = integers("key_lengths", c_.key_lengths);
    if (!c_.prefix_lengths.empty()) a.prefix_lengths = integers("prefix_lengths", c_.prefix_lengths);
    a.prefix_length = c_.prefix;
    if (c_.cache_rows > 0) {
      auto rows = shuffled(c_.cache_rows);
      rows.resize(static_cast<std::size_t>(c_.batch));
      a.cache_batch_index = integers("cache_batch_index", rows);
    }
    if (c_.page_size > 0) describe_page_table();
    if (c_.append > 0) {
      const Shape key{c_.batch, c_.append, c_.kv_heads, c_.head_dim};
      const Shape value{c_.batch, c_.append, c_.kv_heads, c_.value_dim};
      a.new_key = input("new_key", rows_tensor(c_.layout, c_.dtype, key));
      a.new_value = input("new_value", rows_tensor(c_.layout, c_.dtype, value));
    }
    if (c_.rotary_dim > 0) {
      const Shape shape{std::max(c_.k, c_.longest_query()) + 1, c_.rotary_dim / 2};
      a.rotary_cos = input("rotary_cos", contiguous(parse_type(c_.rotary_type), shape));
      a.rotary_sin = input("rotary_sin", contiguous(parse_type(c_.rotary_type), shape));
      a.rotary_style = c_.rotary_halves ? RotaryStyle::kHalves : RotaryStyle::kInterleaved;
    }
  }

  /// Entries of pages that are not in use stay poison.
  void describe_page_table() {
    const std::int64_t row = c_.k / c_.page_size;
    const Tensor table = input("page_table", contiguous(DataType::kInt32, {c_.batch, row}));
    const auto order = shuffled(pages());
    for (std::int64_t b = 0; b < c_.batch; ++b) {
      const std::int64_t used = (c_.key_lengths[b] + c_.append + c_.page_size - 1) / c_.page_size;
      for (std::int64_t page = 0; page < std::min(used, row); ++page) {
        static_cast<std::int32_t*>(table.data)[b * row + page] = std::int32_t(order[b * row + page]);
      }
    }
    to_.attention.page_table = table;
  }

  /// [b, h, i, j] with 1 for the axes that are not in `axes`.
  Shape score_shape(const std::string& axes, std::int64_t rows, std::int64_t columns) const {
    const auto size = [&](char axis, std::int64_t n) { return axes.find(axis) == axes.npos ? 1 : n; };
    return {size('b', c_.batch), size('h', c_.query_heads), size('q', rows), size('k', columns)};
  }
  Tensor score_tensor(DataType dtype, const Shape& shape) const {
    Tensor view = contiguous(dtype, shape);
    if (c_.layout != "padded") return view;
    view.strides[2] = shape[3] + 3;
    view.strides[1] = shape[2] * view.strides[2] + 1;
    view.strides[0] = shape[1] * view.strides[1] + 2;
    return view;
  }

  void describe_options() {
    Attention& a = to_.attention;
    if (c_.scale) a.scale = c_.scale;
    // A key differs from any other in one sign at least, so by 128 in score: its rivals' weights underflow.
    if (!c_.scale && c_.inputs == "integers") a.scale = 64.0f;
    a.softcap = c_.softcap;
    a.causal = c_.causal;
    a.window_left = c_.window_left;
    a.window_right = c_.window_right;
    a.alignment = c_.top_left ? Alignment::kTopLeft : Alignment::kBottomRight;
    a.dropout = c_.dropout;
    a.dropout_seed = c_.seed * 0x9E3779B97F4A7C15u;
    a.dropout_offset = c_.dropout_offset;
    a.splits = std::int32_t(c_.splits);
    a.batch_invariant = c_.batch_invariant;
    a.deterministic = !c_.relaxed;
    const std::int64_t rows = c_.longest_query(), columns = c_.longest_key();
    if (!c_.bias.empty()) {
      a.bias = input("bias", score_tensor(parse_type(c_.bias_type), score_shape(c_.bias, rows, columns)));
    }
    if (!c_.mask.empty()) {
      a.mask = input("mask", score_tensor(DataType::kBool, score_shape(c_.mask, rows, columns)));
    }
    if (!c_.block_mask.empty()) {
      const std::int64_t tile_rows = (rows + c_.block_rows - 1) / c_.block_rows;
      const std::int64_t tile_columns = (columns + c_.block_columns - 1) / c_.block_columns;
      a.block_mask = input("block_mask",
                           score_tensor(DataType::kBool, score_shape(c_.block_mask + "qk", tile_rows, tile_columns)));
      a.block_rows = c_.block_rows;
      a.block_columns = c_.block_columns;
    }
    const auto floats = [&](const char* name, const Shape& shape) {
      return input(name, contiguous(DataType::kFloat32, shape));
    };
    if (c_.alibi == "h") a.alibi_slopes = floats("alibi_slopes", {c_.query_heads});
    if (c_.alibi == "bh") a.alibi_slopes = floats("alibi_slopes", {c_.batch, c_.query_heads});
    if (c_.sink) a.sink = floats("sink", {c_.query_heads});
    if (!c_.descale.empty()) {
      const Shape shape = c_.descale == "1" ? Shape{1} : Shape{c_.batch, c_.kv_heads};
      a.query_descale = floats("query_descale", shape);
      a.key_descale = floats("key_descale", shape);
      a.value_descale = floats("value_descale", shape);
    }
    if (!c_.documents.empty()) {
      const auto documents = [&](const char* name, const Shape& rows_shape) {
        return input(name, contiguous(DataType::kInt32, Shape(rows_shape.begin(), rows_shape.end() - 2)));
      };
      a.query_documents = documents("query_documents", query_shape(1, 1));
      if (c_.documents == "apart") {
        const bool cached = c_.page_size > 0 || c_.cache_rows > 0;
        a.key_documents = documents("key_documents", cached ? Shape{c_.batch, c_.k, 1, 1} : key_shape(1));
      }
    }
  }

  void describe_results() {
    const std::string& layout = c_.layout;
    const Shape output_shape = query_shape(c_.query_heads, c_.value_dim);
    const Tensor output_layout = rows_tensor(layout, c_.output_dtype(), output_shape);
    Tensor lse_layout =
        contiguous(DataType::kFloat32, !c_.packed_queries.empty() ? Shape{c_.query_heads, output_shape[0]}
                                                                  : Shape{c_.batch, c_.query_heads, c_.q});
    if (layout == "padded") {
      const int last = lse_layout.rank - 1;
      lse_layout.strides[last - 1] = lse_layout.shape[last] + 3;
      if (last == 2) lse_layout.strides[0] = lse_layout.shape[1] * lse_layout.strides[1] + 1;
    }
    if (c_.pass == Pass::kForward) {
      to_.outputs.output = result("output", output_layout);
      if (!c_.no_lse) to_.outputs.lse = result("lse", lse_layout);
      return;
    }
    to_.upstream.output = input("output", output_layout);
    to_.upstream.lse = input("lse", lse_layout);
    to_.upstream.grad_output = input("grad_output", output_layout);
    if (c_.grad_lse) to_.upstream.grad_lse = input("grad_lse", lse_layout);
    const auto wanted = [&](char name) { return c_.grads.empty() || c_.grads.find(name) != c_.grads.npos; };
    const DataType type = c_.grad_dtype();
    Gradients& g = to_.gradients;
    if (wanted('q')) {
      g.query = result("grad_query", rows_tensor(layout, type, query_shape(c_.query_heads, c_.head_dim)));
    }
    if (wanted('k')) g.key = result("grad_key", rows_tensor(layout, type, key_shape(c_.head_dim)));
    if (wanted('v')) g.value = result("grad_value", rows_tensor(layout, type, key_shape(c_.value_dim)));
    if (wanted('b') && !c_.bias.empty()) {
      const Shape shape = score_shape(c_.bias, c_.longest_query(), c_.longest_key());
      g.bias = result("grad_bias", score_tensor(parse_type(c_.bias_type), shape));
    }
    if (wanted('s') && c_.sink) g.sink = result("grad_sink", contiguous(DataType::kFloat32, {c_.query_heads}));
  }

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
    const auto sign = [&](std::int64_t) { return random_.chance(0.5) ? 1.0 : -1.0; };
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
      for_each_element(documents, [&](const std::int64_t* index, std::int64_t offset) {
        const bool starts = index[documents.rank - 1] == 0 && documents.rank == 2;
        document = starts ? 0 : document + (random_.chance(0.1) ? 1 : 0);
        static_cast<std::int32_t*>(documents.data)[offset] = document;
      });
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
  Random random_;
};

}  // namespace

std::unique_ptr<Instance> build(const Case& description) {
  auto instance = std::make_unique<Instance>();
  Builder(*instance, description).build();
  return instance;
}

void reset(Instance& instance) {
  for (Storage& storage : instance.inputs) storage.restore();
  for (Storage& storage : instance.results) storage.restore();
}

}  // namespace strobe::cases
