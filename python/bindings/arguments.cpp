// The options of attention by their names, and what the arguments of a call become.
#include "bindings/arguments.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <variant>

namespace nb = nanobind;

namespace strobe::python {
namespace {

[[noreturn]] void refuse(const char* option, nb::handle value, const char* must_be) {
  const nb::str was = nb::repr(value);
  throw nb::type_error((std::string(option) + " is " + was.c_str() + ", must be " + must_be).c_str());
}

template <typename Number>
Number number_of(const char* option, nb::handle value, const char* must_be) {
  Number number{};
  if (!nb::try_cast(value, number)) refuse(option, value, must_be);
  return number;
}

// One function for each type that an option has in strobe::Attention.

void set(bool& field, const char* option, nb::handle value, Arrays&) {
  field = number_of<bool>(option, value, "True or False");
}
void set(float& field, const char* option, nb::handle value, Arrays&) {
  field = float(number_of<double>(option, value, "a number"));
}
void set(std::optional<float>& field, const char* option, nb::handle value, Arrays&) {
  field = float(number_of<double>(option, value, "a number"));
}
void set(std::int32_t& field, const char* option, nb::handle value, Arrays&) {
  field = number_of<std::int32_t>(option, value, "a 32-bit integer");
}
void set(std::int64_t& field, const char* option, nb::handle value, Arrays&) {
  field = number_of<std::int64_t>(option, value, "a 64-bit integer");
}
void set(std::uint64_t& field, const char* option, nb::handle value, Arrays&) {
  field = number_of<std::uint64_t>(option, value, "a 64-bit integer that is not negative");
}
void set(Tensor& field, const char* option, nb::handle value, Arrays& arrays) { field = arrays.view(option, value); }

template <typename Enumeration>
Enumeration choice_of(const char* option, nb::handle value, const char* const (&names)[2], const char* must_be) {
  const char* name = nullptr;
  if (!nb::try_cast(value, name)) refuse(option, value, must_be);
  for (int choice = 0; choice < 2; ++choice) {
    if (std::string_view(name) == names[choice]) return Enumeration(choice);
  }
  throw Error(ErrorCode::kInvalidArgument, option, '"' + std::string(name) + '"', must_be);
}

void set(Alignment& field, const char* option, nb::handle value, Arrays&) {
  field = choice_of<Alignment>(option, value, {"bottom_right", "top_left"}, "\"bottom_right\" or \"top_left\"");
}
void set(RotaryStyle& field, const char* option, nb::handle value, Arrays&) {
  field = choice_of<RotaryStyle>(option, value, {"interleaved", "halves"}, "\"interleaved\" or \"halves\"");
}

/// window=(left, right), each of them an integer or None.
void set_window(Attention& attention, nb::handle value) {
  constexpr const char* kMustBe = "a pair (left, right) of integers or None";
  if (!nb::isinstance<nb::tuple>(value) || nb::len(value) != 2) refuse("window", value, kMustBe);
  const auto side = [&](int which) -> std::optional<std::int64_t> {
    const nb::object keys = value[which];
    if (keys.is_none()) return std::nullopt;
    return number_of<std::int64_t>("window", keys, "an integer or None on each side");
  };
  attention.window_left = side(0);
  attention.window_right = side(1);
}

/// window, whose two numbers are fields of their own; every other option has the name of its field.
struct Window {};

template <typename Type>
using Field = Type Attention::*;
using AnyField =
    std::variant<Window, Field<bool>, Field<float>, Field<std::optional<float>>, Field<std::int32_t>,
                 Field<std::int64_t>, Field<std::uint64_t>, Field<Tensor>, Field<Alignment>, Field<RotaryStyle>>;

struct Option {
  const char* name;
  AnyField field;
};

const Option kOptions[] = {
    {"causal", &Attention::causal},
    {"window", Window()},
    {"scale", &Attention::scale},
    {"softcap", &Attention::softcap},
    {"bias", &Attention::bias},
    {"alibi_slopes", &Attention::alibi_slopes},
    {"sink", &Attention::sink},
    {"alignment", &Attention::alignment},
    {"prefix_length", &Attention::prefix_length},
    {"prefix_lengths", &Attention::prefix_lengths},
    {"query_documents", &Attention::query_documents},
    {"key_documents", &Attention::key_documents},
    {"mask", &Attention::mask},
    {"block_mask", &Attention::block_mask},
    {"block_rows", &Attention::block_rows},
    {"block_columns", &Attention::block_columns},
    {"query_offsets", &Attention::query_offsets},
    {"key_offsets", &Attention::key_offsets},
    {"query_lengths", &Attention::query_lengths},
    {"key_lengths", &Attention::key_lengths},
    {"dropout", &Attention::dropout},
    {"dropout_seed", &Attention::dropout_seed},
    {"dropout_offset", &Attention::dropout_offset},
    {"cache_batch_index", &Attention::cache_batch_index},
    {"page_table", &Attention::page_table},
    {"new_key", &Attention::new_key},
    {"new_value", &Attention::new_value},
    {"rotary_cos", &Attention::rotary_cos},
    {"rotary_sin", &Attention::rotary_sin},
    {"rotary_style", &Attention::rotary_style},
    {"query_descale", &Attention::query_descale},
    {"key_descale", &Attention::key_descale},
    {"value_descale", &Attention::value_descale},
    {"splits", &Attention::splits},
    {"batch_invariant", &Attention::batch_invariant},
    {"deterministic", &Attention::deterministic},
};

/// Names of arguments are mostly the interpreter's own copies (interned), told apart by their addresses.
const Option& option_named(nb::handle name) {
  static const auto interned = [] {
    std::array<PyObject*, std::size(kOptions)> names{};
    for (std::size_t n = 0; n < names.size(); ++n) names[n] = PyUnicode_InternFromString(kOptions[n].name);
    return names;
  }();
  const auto place = std::find(interned.begin(), interned.end(), name.ptr());
  if (place != interned.end()) return kOptions[place - interned.begin()];
  const std::string_view text = nb::cast<const char*>(name);
  for (const Option& option : kOptions) {
    if (text == option.name) return option;
  }
  throw nb::type_error(("there is no option \"" + std::string(text) + "\"").c_str());
}

}  // namespace

void set_option(Attention& attention, nb::handle name, nb::handle value, Arrays& arrays) {
  if (value.is_none()) return;
  const Option& option = option_named(name);
  const auto set_field = [&](auto field) {
    if constexpr (std::is_same_v<decltype(field), Window>) {
      set_window(attention, value);
    } else {
      set(attention.*field, option.name, value, arrays);
    }
  };
  std::visit(set_field, option.field);
}

void set_options(Attention& attention, const nb::dict& options, Arrays& arrays) {
  for (const auto& [name, value] : options) set_option(attention, name, value, arrays);
}

void view_inputs(Attention& attention, nb::handle query, nb::handle key, nb::handle value, Arrays& arrays) {
  attention.query = arrays.view("query", query);
  attention.key = arrays.view("key", key);
  attention.value = arrays.view("value", value);
}

void view_written_cache(Attention& attention, nb::handle key, nb::handle value, Arrays& arrays) {
  if (!attention.new_key.given()) return;
  attention.key = arrays.view("key", key, Access::kWrite);
  attention.value = arrays.view("value", value, Access::kWrite);
}

Attention attention_of(nb::handle query, nb::handle key, nb::handle value, const nb::dict& options, Arrays& arrays) {
  Attention attention;
  view_inputs(attention, query, key, value, arrays);
  set_options(attention, options, arrays);
  view_written_cache(attention, key, value, arrays);
  return attention;
}

Tensor view_if_given(const char* argument, nb::handle array, Arrays& arrays, Access access) {
  return array.is_none() ? Tensor{} : arrays.view(argument, array, access);
}

Execution execution_of(const Arrays& arrays, nb::handle query, nb::handle stream) {
  Execution execution{.device = arrays.device()};
  nb::object address = nb::borrow(stream);
  if (stream.is_none()) {
    if (execution.device.kind == DeviceKind::kCpu) return execution;
    if (const auto current = arrays.current_stream()) {
      execution.stream = *current;
      return execution;
    }
    address = nb::module_::import_("strobe._arrays").attr("current_stream")(query);
  }
  const auto number = number_of<std::uintptr_t>("stream", address, "the address of a CUDA stream, an integer");
  execution.stream = reinterpret_cast<void*>(number);
  return execution;
}

bool result_is_like_query(const Attention& attention) {
  const Tensor &query = attention.query, &value = attention.value;
  if (query.rank < 3 || value.rank < 3 || size_of(query.dtype) == 1) return false;
  if (query.shape[query.rank - 1] != value.shape[value.rank - 1]) return false;
  std::int64_t stride = 1;
  for (int axis = query.rank - 1; axis >= 0; --axis) {
    if (query.strides[axis] != stride && query.shape[axis] != 1) return false;
    stride *= query.shape[axis];
  }
  return true;
}

}  // namespace strobe::python
