// The extension strobe._core: Strobe's C++ API for the Python beside it (python/strobe), which allocates the outputs
// and has the docstrings. Options arrive as a dict of the keyword arguments that a caller gave.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string_view>
#include <variant>

#include "bindings/arrays.hpp"
#include "strobe/strobe.hpp"

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

template <typename Type>
using Field = Type Attention::*;
using AnyField =
    std::variant<Field<bool>, Field<float>, Field<std::optional<float>>, Field<std::int32_t>, Field<std::int64_t>,
                 Field<std::uint64_t>, Field<Tensor>, Field<Alignment>, Field<RotaryStyle>>;

struct Option {
  const char* name;
  AnyField field;
};

/// Every option but window has the name of its field.
const Option kOptions[] = {
    {"causal", &Attention::causal},
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

void set_option(Attention& attention, std::string_view name, nb::handle value, Arrays& arrays) {
  if (name == "window") return set_window(attention, value);
  for (const Option& option : kOptions) {
    if (name != option.name) continue;
    return std::visit([&](auto field) { set(attention.*field, option.name, value, arrays); }, option.field);
  }
  throw nb::type_error(("there is no option \"" + std::string(name) + "\"").c_str());
}

void set_options(Attention& attention, const nb::dict& options, Arrays& arrays) {
  for (const auto& [name, given] : options) {
    if (!given.is_none()) set_option(attention, nb::cast<const char*>(name), given, arrays);
  }
}

Attention attention_of(nb::handle query, nb::handle key, nb::handle value, const nb::dict& options, Arrays& arrays) {
  Attention attention{
      .query = arrays.view("query", query), .key = arrays.view("key", key), .value = arrays.view("value", value)};
  set_options(attention, options, arrays);
  if (attention.new_key.given()) {  // is written to the cache, as new_value is
    attention.key = arrays.view("key", key, Access::kWrite);
    attention.value = arrays.view("value", value, Access::kWrite);
  }
  return attention;
}

Tensor view_if_given(const char* argument, nb::handle array, Arrays& arrays, Access access = Access::kRead) {
  return array.is_none() ? Tensor{} : arrays.view(argument, array, access);
}

/// `stream` is the address of a cudaStream_t, or None for the stream on which query's library works.
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

template <Origin kOrigin>
void forward(nb::handle query, nb::handle key, nb::handle value, nb::handle out, nb::handle lse, nb::handle stream,
             const nb::dict& options) {
  Arrays arrays(kOrigin);
  const Attention attention = attention_of(query, key, value, options, arrays);
  const ForwardOutputs outputs{.output = arrays.view("out", out, Access::kWrite),
                               .lse = view_if_given("lse", lse, arrays, Access::kWrite)};
  const Execution execution = execution_of(arrays, query, stream);
  const nb::gil_scoped_release released;
  strobe::forward(attention, outputs, execution);
}

/// Whether attention's result has query's shape and type, and query is row-major.
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

/// forward into empty_like(query), which is returned; None, and nothing is done, where the result is not like query.
template <Origin kOrigin>
nb::object forward_like(nb::handle query, nb::handle key, nb::handle value, nb::handle empty_like, nb::handle lse,
                        nb::handle stream, const nb::dict& options) {
  Arrays arrays(kOrigin);
  const Attention attention = attention_of(query, key, value, options, arrays);
  if (!result_is_like_query(attention)) return nb::none();
  nb::object out = empty_like(query);
  const ForwardOutputs outputs{.output = arrays.view("out", out, Access::kWrite),
                               .lse = view_if_given("lse", lse, arrays, Access::kWrite)};
  const Execution execution = execution_of(arrays, query, stream);
  const nb::gil_scoped_release released;
  strobe::forward(attention, outputs, execution);
  return out;
}

/// `gradients` has an array for each gradient that is wanted, by the name of the input: query, key, value, bias, sink.
void backward(nb::handle grad_out, nb::handle query, nb::handle key, nb::handle value, nb::handle out, nb::handle lse,
              nb::handle grad_lse, const nb::dict& gradients, nb::handle stream, const nb::dict& options) {
  Arrays arrays;
  const Attention attention = attention_of(query, key, value, options, arrays);
  const BackwardInputs inputs{.output = arrays.view("out", out),
                              .lse = arrays.view("lse", lse),
                              .grad_output = arrays.view("grad_out", grad_out),
                              .grad_lse = view_if_given("grad_lse", grad_lse, arrays)};
  const auto gradient = [&](const char* name, const char* argument) {
    return gradients.contains(name) ? arrays.view(argument, gradients[name], Access::kWrite) : Tensor{};
  };
  const Gradients wanted{.query = gradient("query", "gradients.query"),
                         .key = gradient("key", "gradients.key"),
                         .value = gradient("value", "gradients.value"),
                         .bias = gradient("bias", "gradients.bias"),
                         .sink = gradient("sink", "gradients.sink")};
  const Execution execution = execution_of(arrays, query, stream);
  const nb::gil_scoped_release released;
  strobe::backward(attention, inputs, wanted, execution);
}

/// Writes new keys and values into a cache. There are no queries; options are those of attention.
void append(nb::handle key, nb::handle value, nb::handle stream, const nb::dict& options) {
  Arrays arrays;
  Attention attention{.key = arrays.view("key", key, Access::kWrite),
                      .value = arrays.view("value", value, Access::kWrite)};
  set_options(attention, options, arrays);
  const Execution execution = execution_of(arrays, key, stream);
  const nb::gil_scoped_release released;
  strobe::append(attention, execution);
}

void merge(nb::handle outputs, nb::handle lses, nb::handle out, nb::handle lse, nb::handle stream) {
  Arrays arrays;
  const Tensor parts = arrays.view("outputs", outputs), part_lses = arrays.view("lses", lses);
  const ForwardOutputs merged{.output = arrays.view("out", out, Access::kWrite),
                              .lse = view_if_given("lse", lse, arrays, Access::kWrite)};
  const Execution execution = execution_of(arrays, outputs, stream);
  const nb::gil_scoped_release released;
  strobe::merge(parts, part_lses, merged, execution);
}

void softmax(nb::handle input, nb::handle out, int axis, nb::handle stream) {
  Arrays arrays;
  const Tensor from = arrays.view("input", input), to = arrays.view("out", out, Access::kWrite);
  const Execution execution = execution_of(arrays, input, stream);
  const nb::gil_scoped_release released;
  strobe::softmax(from, to, axis, execution);
}

void softmax_backward(nb::handle grad_out, nb::handle out, nb::handle grad_input, int axis, nb::handle stream) {
  Arrays arrays;
  const Tensor output = arrays.view("out", out), grad_output = arrays.view("grad_out", grad_out);
  const Tensor to = arrays.view("grad_input", grad_input, Access::kWrite);
  const Execution execution = execution_of(arrays, out, stream);
  const nb::gil_scoped_release released;
  strobe::softmax_backward(output, grad_output, to, axis, execution);
}

/// As `like`, but row-major, with another last axis, and without memory: plans need none.
Tensor shaped_like(const Tensor& like, std::int64_t dim, DataType type) {
  Tensor tensor{.dtype = type, .rank = like.rank};
  std::int64_t stride = 1;
  for (int axis = like.rank - 1; axis >= 0; --axis) {
    tensor.shape[axis] = axis == like.rank - 1 ? dim : like.shape[axis];
    tensor.strides[axis] = stride;
    stride *= tensor.shape[axis];
  }
  return tensor;
}

Tensor lse_of(const Attention& attention) {
  const std::int64_t* query = attention.query.shape;
  return attention.query_offsets.given()
             ? Tensor::contiguous(nullptr, DataType::kFloat32, {query[1], query[0]})
             : Tensor::contiguous(nullptr, DataType::kFloat32, {query[0], query[2], query[1]});
}

Plan plan(nb::handle query, nb::handle key, nb::handle value, bool backward, const nb::dict& options) {
  Arrays arrays;
  const Attention attention = attention_of(query, key, value, options, arrays);
  const Execution execution{.device = arrays.device()};
  const DataType type = attention.query.dtype;
  const bool float8 = type == DataType::kFloat8E4M3 || type == DataType::kFloat8E5M2;
  const std::int64_t value_dim = attention.value.shape[attention.value.rank - 1];
  const Tensor output = shaped_like(attention.query, value_dim, float8 ? DataType::kFloat32 : type);
  const auto gradient = [](const Tensor& of) { return shaped_like(of, of.shape[of.rank - 1], of.dtype); };
  const nb::gil_scoped_release released;
  if (!backward) return plan_forward(attention, {.output = output, .lse = lse_of(attention)}, execution);
  return plan_backward(
      attention, {.output = output, .lse = lse_of(attention), .grad_output = output},
      {.query = gradient(attention.query), .key = gradient(attention.key), .value = gradient(attention.value)},
      execution);
}

/// Python's exceptions for Strobe's, and Python's names for the arguments that have another name in C++.
void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    PyObject* type = error.code() == ErrorCode::kInvalidArgument ? PyExc_ValueError
                     : error.code() == ErrorCode::kUnsupported   ? PyExc_NotImplementedError
                     : error.code() == ErrorCode::kOutOfMemory   ? PyExc_MemoryError
                                                                 : PyExc_RuntimeError;
    const std::string& argument = error.argument();
    const char* name = argument == "output" ? "out" : argument == "grad_output" ? "grad_out" : argument.c_str();
    PyErr_Format(type, "%s is %s, must be %s", name, error.was().c_str(), error.must_be().c_str());
  }
}

}  // namespace

NB_MODULE(_core, module) {
  nb::register_exception_translator(translate);

  // Arrays may be None for nanobind: the view that is then refused has the better message.
  module.def("attention", &forward<Origin::kUser>, nb::arg("query").none(), nb::arg("key").none(),
             nb::arg("value").none(), nb::arg("out").none(), nb::arg("lse").none(), nb::arg("stream").none(),
             nb::arg("options"));
  module.def("attention_like", &forward_like<Origin::kUser>, nb::arg("query").none(), nb::arg("key").none(),
             nb::arg("value").none(), nb::arg("empty_like"), nb::arg("lse").none(), nb::arg("stream").none(),
             nb::arg("options"));
  module.def("forward_like", &forward_like<Origin::kOwn>, nb::arg("query"), nb::arg("key"), nb::arg("value"),
             nb::arg("empty_like"), nb::arg("lse").none(), nb::arg("stream").none(), nb::arg("options"));
  module.def("forward", &forward<Origin::kOwn>, nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("out"),
             nb::arg("lse").none(), nb::arg("stream").none(), nb::arg("options"));
  module.def("backward", &backward, nb::arg("grad_out"), nb::arg("query"), nb::arg("key"), nb::arg("value"),
             nb::arg("out"), nb::arg("lse"), nb::arg("grad_lse").none(), nb::arg("gradients"), nb::arg("stream").none(),
             nb::arg("options"));
  module.def("append", &append, nb::arg("key"), nb::arg("value"), nb::arg("stream").none(), nb::arg("options"));
  module.def("merge", &merge, nb::arg("outputs"), nb::arg("lses"), nb::arg("out"), nb::arg("lse").none(),
             nb::arg("stream").none());
  module.def("softmax", &softmax, nb::arg("input"), nb::arg("out"), nb::arg("axis"), nb::arg("stream").none());
  module.def("softmax_backward", &softmax_backward, nb::arg("grad_out"), nb::arg("out"), nb::arg("grad_input"),
             nb::arg("axis"), nb::arg("stream").none());
  module.def("plan", &plan, nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("backward"),
             nb::arg("options"));
  module.def("cuda_device_count", &cuda_device_count);
  module.def("version", &version);

  nb::class_<Plan>(module, "Plan", "What runs for a problem, and why. str() explains it in several lines.")
      .def_prop_ro("kernel", &Plan::kernel, "The kernel's name: \"cpu.forward.avx512\", \"cuda.sm80.forward\".")
      .def_prop_ro("why", &Plan::why, "One sentence: why this kernel.")
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes, "Memory that a call needs beyond its arrays.")
      .def_prop_ro("split_keys", &Plan::split_keys, "Keys per split; 0 when keys are not split.")
      .def_prop_ro("key_block", &Plan::key_block, "Keys per block of the main loop.")
      .def_prop_ro("query_tile", &Plan::query_tile, "Query rows per tile.")
      .def("__str__", &Plan::explain)
      .def("__repr__", [](const Plan& plan) { return "<strobe.Plan " + std::string(plan.kernel()) + ">"; });
}

}  // namespace strobe::python
