// The extension strobe._core: Strobe's C++ API for the Python beside it (python/strobe), which allocates the outputs
// and has the docstrings. Options arrive as a dict of the keyword arguments that a caller gave.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "bindings/arguments.hpp"
#include "bindings/quick.hpp"
#include "strobe/strobe.hpp"

namespace nb = nanobind;

namespace strobe::python {
namespace {

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

/// forward into empty_like(query), which is returned; None, and nothing is done, where the result is not like query.
nb::object forward_like(nb::handle query, nb::handle key, nb::handle value, nb::handle empty_like, nb::handle lse,
                        nb::handle stream, const nb::dict& options) {
  Arrays arrays;
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
  module.def("quick_attention", &quick_attention, nb::arg("general"));
  module.def("quick_torch_attention", &quick_torch_attention, nb::arg("arguments"), nb::arg("options"));
  module.def("forward_like", &forward_like, nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("empty_like"),
             nb::arg("lse").none(), nb::arg("stream").none(), nb::arg("options"));
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
