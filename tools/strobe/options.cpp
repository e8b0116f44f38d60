// Declaring and parsing the shared flags.
#include "options.hpp"

#include <fmt/format.h>

#include <charconv>

#include "errors.hpp"

namespace strobe::tools {
namespace {

template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

std::optional<std::int64_t> parse_bound(std::string_view text, const std::string& whole) {
  if (text.empty() || text == "none" || text == "-1") return std::nullopt;
  std::int64_t value = 0;
  if (!parse_number(text, value) || value < 0) {
    throw UsageError("--window is '" + whole + "', must be LEFT,RIGHT with whole numbers, or none for no bound");
  }
  return value;
}

}  // namespace

DataType parse_float_type(const std::string& name) {
  for (const DataType type :
       {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kFloat8E4M3, DataType::kFloat8E5M2}) {
    if (name == name_of(type)) return type;
  }
  throw UsageError("--dtype is '" + name + "', must be float32, float16, bfloat16, float8_e4m3 or float8_e5m2");
}

Window parse_window(const std::string& text) {
  const std::size_t comma = text.find(',');
  if (comma == std::string::npos) {
    throw UsageError("--window is '" + text + "', must be LEFT,RIGHT, for example 1024,0");
  }
  const std::string_view view = text;
  return {parse_bound(view.substr(0, comma), text), parse_bound(view.substr(comma + 1), text)};
}

BlockSize parse_block_size(const std::string& text) {
  const auto values = parse_list(text);
  const auto usable = [](double size) { return size >= 1 && size <= INT32_MAX; };
  if (!values || values->size() != 2 || !usable(values->front()) || !usable(values->back())) {
    throw UsageError("--block-size is '" + text + "', must be ROWS,COLUMNS, for example 64,64");
  }
  return {std::int64_t(values->front()), std::int64_t(values->back())};
}

std::optional<std::vector<double>> parse_list(const std::string& text) {
  std::vector<double> values;
  std::string_view rest = text;
  while (true) {
    const std::size_t comma = rest.find(',');
    double value = 0;
    if (!parse_number(rest.substr(0, comma), value)) return std::nullopt;
    values.push_back(value);
    if (comma == std::string_view::npos) return values;
    rest.remove_prefix(comma + 1);
  }
}

void OptionFlags::declare(CLI::App& command) {
  command.add_option("--scale", scale, "Factor on Q K^T [1 / sqrt(head_dim)]");
  command.add_option("--softcap", softcap, "c: scores become c tanh(s / c)");
  command.add_flag("--causal", causal, "Query i sees keys up to its own position");
  command.add_option("--window", window, "LEFT,RIGHT keys around a query's position; an empty half is unbounded");
  command.add_option("--alignment", alignment, "Where query i stands among the keys: bottom-right or top-left")
      ->check(CLI::IsMember({"bottom-right", "top-left"}))
      ->capture_default_str();
  command.add_option("--prefix", prefix, "The first keys, exempt from causal and window")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--dropout", dropout, "Probability of dropping an attention weight");
  command.add_option("--seed", seed, "Seed of random numbers");
  command.add_option("--offset", offset, "Dropout's stream offset");
  command.add_option("--block-size", block_size, "ROWS,COLUMNS of a block mask's tile");
  command.add_option("--rotary-style", rotary_style, "Pairs of a rotation: interleaved or halves")
      ->check(CLI::IsMember({"interleaved", "halves"}));
  command.add_option("--splits", splits, "Workers that share the keys of one query; 0 chooses");
  command.add_flag("--batch-invariant", batch_invariant, "The same bits whatever else is in the batch");
  command.add_flag("--nondeterministic", nondeterministic, "Backward may trade repeatable bits for speed");
}

void OptionFlags::apply(Attention& attention) const {
  attention.scale = scale;
  attention.softcap = softcap;
  attention.causal = causal;
  if (!window.empty()) {
    const Window bounds = parse_window(window);
    attention.window_left = bounds.left;
    attention.window_right = bounds.right;
  }
  attention.alignment = alignment == "top-left" ? Alignment::kTopLeft : Alignment::kBottomRight;
  attention.prefix_length = prefix;
  attention.dropout = dropout;
  attention.dropout_seed = seed;
  attention.dropout_offset = offset;
  if (!block_size.empty()) {
    const BlockSize block = parse_block_size(block_size);
    attention.block_rows = block.rows;
    attention.block_columns = block.columns;
  }
  attention.rotary_style = rotary_style == "halves" ? RotaryStyle::kHalves : RotaryStyle::kInterleaved;
  attention.splits = splits;
  attention.batch_invariant = batch_invariant;
  attention.deterministic = !nondeterministic;
}

void SizeFlags::declare(CLI::App& command) {
  const auto size = [&](const char* name, std::int64_t& value, const char* text) {
    command.add_option(name, value, text)
        ->check(CLI::Range(std::int64_t(0), std::int64_t(1) << 40))
        ->capture_default_str();
  };
  size("--batch", batch, "Sequences");
  size("--query-length,--length", query_length, "Queries of a sequence");
  size("--key-length", key_length, "Keys of a sequence; 0: as many as queries");
  size("--heads,--query-heads", heads, "Query heads");
  size("--kv-heads", kv_heads, "Key and value heads; 0: as many as query heads");
  size("--head-dim,--dim", head_dim, "Size of a query or key row");
  size("--value-dim", value_dim, "Size of a value row; 0: head_dim");
  command.add_option("--dtype", dtype, "float32, float16, bfloat16, float8_e4m3 or float8_e5m2")->capture_default_str();
}

SizeFlags SizeFlags::resolved() const {
  SizeFlags sizes = *this;
  if (sizes.key_length == 0) sizes.key_length = query_length;
  if (sizes.kv_heads == 0) sizes.kv_heads = heads;
  if (sizes.value_dim == 0) sizes.value_dim = head_dim;
  return sizes;
}

Threads::Threads(int threads) {
  if (threads > 0) own_ = make_thread_pool(threads);
  executor_ = own_ ? own_.get() : &default_executor();
}

std::string shape_text(const Tensor& tensor) {
  return fmt::format("({})", fmt::join(tensor.shape, tensor.shape + tensor.rank, ", "));
}

}  // namespace strobe::tools
