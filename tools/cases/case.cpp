// Cases to text and back, from one list of fields.
#include "cases/case.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace strobe::cases {
namespace {

[[noreturn]] void refuse(std::string_view word, const char* must_be) {
  throw Error(ErrorCode::kInvalidArgument, "case", "'" + std::string(word) + "'", must_be);
}

/// Two numbers in one word, as in heads=8/2.
struct Pair {
  std::int64_t &first, &second;
  char separator;
};
struct Window {
  std::optional<std::int64_t>&left, &right;
};

template <class Number>
void parse(std::string_view text, Number& value) requires std::is_arithmetic_v<Number> {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) refuse(text, "a number");
}
void parse(std::string_view text, std::string& value) { value = text; }
void parse(std::string_view text, DataType& value) { value = parse_type(text); }
void parse(std::string_view text, Pass& value) {
  if (text != "forward" && text != "backward") refuse(text, "forward or backward");
  value = text == "forward" ? Pass::kForward : Pass::kBackward;
}
void parse(std::string_view text, std::optional<float>& value) { parse(text, value.emplace()); }
void parse(std::string_view text, Case::Integers& values) {
  values.clear();
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parse(text.substr(begin, end - begin), values.emplace_back());
    begin = end + 1;
  }
}
void parse(std::string_view text, Pair pair) {
  const std::size_t at = text.find(pair.separator);
  parse(text.substr(0, at), pair.first);
  pair.second = pair.first;
  if (at != text.npos) parse(text.substr(at + 1), pair.second);
}
void parse(std::string_view text, Window window) {
  const std::size_t comma = text.find(',');
  if (comma == text.npos) refuse(text, "left,right with - for no bound");
  window.left.reset();
  window.right.reset();
  if (text.substr(0, comma) != "-") parse(text.substr(0, comma), window.left.emplace());
  if (text.substr(comma + 1) != "-") parse(text.substr(comma + 1), window.right.emplace());
}

template <class Number>
std::string print(Number value) requires std::is_arithmetic_v<Number> {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return {text, result.ptr};
}
std::string print(const std::string& value) { return value; }
std::string print(DataType value) { return name_of(value); }
std::string print(Pass value) { return value == Pass::kForward ? "forward" : "backward"; }
std::string print(const std::optional<float>& value) { return value ? print(*value) : ""; }
std::string print(const Case::Integers& values) {
  std::string text;
  for (std::int64_t value : values) {
    if (!text.empty()) text += ',';
    text += print(value);
  }
  return text;
}
std::string print(Pair pair) { return print(pair.first) + pair.separator + print(pair.second); }
std::string print(Window window) {
  if (!window.left && !window.right) return "";
  const auto bound = [](const std::optional<std::int64_t>& at) { return at ? print(*at) : std::string("-"); };
  return bound(window.left) + "," + bound(window.right);
}

/// Calls visit(name, field) for every field, in the order of printing.
template <class Visit>
void visit_fields(Case& c, Visit&& visit) {
  visit("pass", c.pass);
  visit("dtype", c.dtype);
  visit("output", c.output_type);
  visit("grad_type", c.grad_type);
  visit("batch", c.batch);
  visit("q", c.q);
  visit("k", c.k);
  visit("heads", Pair{c.query_heads, c.kv_heads, '/'});
  visit("dim", Pair{c.head_dim, c.value_dim, '/'});
  visit("packed_queries", c.packed_queries);
  visit("packed_keys", c.packed_keys);
  visit("query_lengths", c.query_lengths);
  visit("key_lengths", c.key_lengths);
  visit("cache_rows", c.cache_rows);
  visit("page", c.page_size);
  visit("append", c.append);
  visit("rotary", c.rotary_dim);
  visit("rotary_halves", c.rotary_halves);
  visit("rotary_type", c.rotary_type);
  visit("descale", c.descale);
  visit("scale", c.scale);
  visit("softcap", c.softcap);
  visit("bias", c.bias);
  visit("bias_type", c.bias_type);
  visit("alibi", c.alibi);
  visit("sink", c.sink);
  visit("causal", c.causal);
  visit("window", Window{c.window_left, c.window_right});
  visit("top_left", c.top_left);
  visit("prefix", c.prefix);
  visit("prefix_lengths", c.prefix_lengths);
  visit("documents", c.documents);
  visit("mask", c.mask);
  visit("block_mask", c.block_mask);
  visit("block", Pair{c.block_rows, c.block_columns, ','});
  visit("dropout", c.dropout);
  visit("dropout_offset", c.dropout_offset);
  visit("splits", c.splits);
  visit("batch_invariant", c.batch_invariant);
  visit("relaxed", c.relaxed);
  visit("no_lse", c.no_lse);
  visit("grad_lse", c.grad_lse);
  visit("grads", c.grads);
  visit("layout", c.layout);
  visit("inputs", c.inputs);
  visit("poison_unseen", c.poison_unseen);
  visit("seed", c.seed);
}

void require_one_of(const char* name, std::string_view value, std::initializer_list<std::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string all;
  for (std::string_view choice : choices) {
    if (!choice.empty()) all += (all.empty() ? "" : ", ") + std::string(choice);
  }
  refuse(std::string(name) + "=" + std::string(value), ("one of " + all).c_str());
}

void require_letters(const char* name, const std::string& value, std::string_view letters) {
  if (value != "1" && value.find_first_not_of(letters) != value.npos) {
    refuse(std::string(name) + "=" + value, ("some of " + std::string(letters)).c_str());
  }
}

/// What the library's own checks cannot see, because the tensors are built from it.
void require_consistent(const Case& c) {
  const auto one_per_sequence = [&](const char* name, const Case::Integers& values) {
    if (!values.empty() && std::int64_t(values.size()) != c.batch) refuse(name, "one number per sequence");
    if (std::any_of(values.begin(), values.end(), [](std::int64_t value) { return value < 0; })) {
      refuse(name, "numbers from 0");
    }
  };
  one_per_sequence("packed_queries", c.packed_queries);
  one_per_sequence("packed_keys", c.packed_keys);
  one_per_sequence("query_lengths", c.query_lengths);
  one_per_sequence("key_lengths", c.key_lengths);
  one_per_sequence("prefix_lengths", c.prefix_lengths);
  for (const std::int64_t size : {c.batch, c.q, c.k, c.query_heads, c.kv_heads, c.head_dim, c.value_dim, c.cache_rows,
                                  c.page_size, c.append, c.rotary_dim}) {
    if (size < 0 || size > (std::int64_t(1) << 31)) refuse(print(size), "a size from 0 to 2^31");
  }
  if (c.cached() && c.key_lengths.empty()) refuse("a cache", "given together with key_lengths");
  if (c.cache_rows > 0 && c.cache_rows < c.batch) refuse("cache_rows", "at least batch");
  if (c.page_size > 0 && c.k % c.page_size != 0) refuse("page", "a divisor of k");
  if (!c.block_mask.empty() && (c.block_rows < 1 || c.block_columns < 1)) refuse("block_mask", "given with block=r,c");
  require_one_of("layout", c.layout, {"bshd", "bhsd", "padded", "fused"});
  require_one_of("inputs", c.inputs, {"normal", "integers", "huge"});
  require_one_of("documents", c.documents, {"", "shared", "apart"});
  require_one_of("alibi", c.alibi, {"", "h", "bh"});
  require_one_of("descale", c.descale, {"", "1", "bh"});
  require_letters("bias", c.bias, "bhqk");
  require_letters("mask", c.mask, "bhqk");
  require_letters("block_mask", c.block_mask, "bh");
  require_letters("grads", c.grads, "qkvbs");
}

}  // namespace

DataType parse_type(std::string_view name) {
  for (int type = 0; type <= int(DataType::kBool); ++type) {
    if (name == name_of(DataType(type))) return DataType(type);
  }
  refuse(name, "a type, such as bfloat16");
}

DataType Case::output_dtype() const {
  if (!output_type.empty()) return parse_type(output_type);
  return size_of(dtype) == 1 ? DataType::kBFloat16 : dtype;
}

DataType Case::grad_dtype() const { return grad_type.empty() ? dtype : parse_type(grad_type); }

std::int64_t Case::longest_query() const {
  return packed_queries.empty() ? q : *std::max_element(packed_queries.begin(), packed_queries.end());
}

std::int64_t Case::longest_key() const {
  return packed_keys.empty() ? k : *std::max_element(packed_keys.begin(), packed_keys.end());
}

Case parse_case(std::string_view line) {
  Case c;
  for (std::size_t begin = line.find_first_not_of(" \t\n"); begin != line.npos;) {
    const std::size_t end = std::min(line.find_first_of(" \t\n", begin), line.size());
    const std::string_view word = line.substr(begin, end - begin);
    const std::size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    bool known = false;
    visit_fields(c, [&](std::string_view field_name, auto&& field) {
      if (field_name != name) return;
      known = true;
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, bool>) {
        if (equals != word.npos) refuse(word, "a flag, without a value");
        field = true;
      } else {
        if (equals == word.npos) refuse(word, "name=value");
        parse(word.substr(equals + 1), field);
      }
    });
    if (!known) refuse(word, "a word of the case grammar");
    begin = line.find_first_not_of(" \t\n", end);
  }
  require_consistent(c);
  return c;
}

std::string print_case(const Case& c) {
  static constexpr std::string_view kAlways[] = {"pass", "dtype", "batch", "q", "k", "heads", "dim", "seed"};
  std::vector<std::string> defaults;
  Case plain, shown = c;
  const auto text_of = [](auto&& field) -> std::string {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, bool>) {
      return field ? "yes" : "";
    } else {
      return print(field);
    }
  };
  visit_fields(plain, [&](std::string_view, auto&& field) { defaults.push_back(text_of(field)); });
  std::string line;
  std::size_t index = 0;
  visit_fields(shown, [&](std::string_view name, auto&& field) {
    const std::string text = text_of(field);
    const bool always = std::find(std::begin(kAlways), std::end(kAlways), name) != std::end(kAlways);
    if (text != defaults[index++] || always) {
      if (!line.empty()) line += ' ';
      line += name;
      if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(field)>, bool>) line.append("=").append(text);
    }
  });
  return line;
}

}  // namespace strobe::cases
