// The shapes and layouts of a case's tensors, and the contents of its index tensors.
#include <algorithm>
#include <numeric>

#include "cases/build.hpp"

namespace strobe::cases {
namespace {

/// Integer keys have eight signs among zeros and queries are copies of them, so a query's own key leads by 3 at least,
/// nearly always. At this scale the weights of all others underflow and every sum is exact.
constexpr float kOneKeyScale = 48.0f;

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

class Describer {
 public:
  Describer(Instance& instance, Random& random) : to_(instance), c_(instance.description), random_(random) {}

  void describe() {
    describe_rows();
    describe_options();
    describe_results();
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
    if (!c_.scale && c_.inputs == "integers") a.scale = c_.pass == Pass::kForward ? kOneKeyScale : 0.125f;
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

  Instance& to_;
  const Case& c_;
  Random& random_;
};

}  // namespace

void describe_tensors(Instance& instance, Random& random) { Describer(instance, random).describe(); }

}  // namespace strobe::cases
