// See quick.hpp.
#include "bindings/quick.hpp"

#include <nanobind/stl/string.h>

#include <exception>
#include <string>

#include "bindings/arguments.hpp"

namespace nb = nanobind;

namespace strobe::python {
namespace {

/// The library's function that makes an uninitialised array like a given one, or None: strobe._arrays.maker_of.
nb::handle maker_of(nb::handle array) {
  static nb::handle last_type, last_maker;
  const nb::handle type = array.type();
  if (!last_type.is(type)) {
    nb::object maker = nb::module_::import_("strobe._arrays").attr("maker_of")(array);
    last_type.dec_ref();
    last_maker.dec_ref();
    last_type = type.inc_ref();
    last_maker = maker.release();
  }
  return last_maker;
}

/// An uninitialised [batch, heads, length] float32 array of query's library, without batch where it is packed.
nb::object row_scores_for(const Tensor& rows, nb::handle query) {
  static const nb::handle empty = nb::getattr(nb::module_::import_("strobe._arrays"), "empty").release();
  const std::int64_t* sizes = rows.shape;
  const nb::tuple shape =
      rows.rank == 4 ? nb::make_tuple(sizes[0], sizes[2], sizes[1]) : nb::make_tuple(sizes[1], sizes[0]);
  return empty(shape, query, "float32");
}

/// What a caller wants beside the options: where to write (null: an array like query), whether lse as well.
struct Wanted {
  nb::handle out{};
  bool lse = false;
  nb::handle stream = Py_None;
};

/// Computes attention, and gives its result, or (result, lse). Null, having done nothing, where the general function
/// must make the arrays for it.
nb::object compute(const Attention& attention, nb::handle query, const Wanted& wanted, Arrays& arrays) {
  nb::object out = nb::borrow(wanted.out), lse;
  if (!out.is_valid() || wanted.lse) {
    const nb::handle maker = maker_of(query);
    const bool makes_out = !out.is_valid();
    if (maker.is_none() || attention.query.rank < 3 || (makes_out && !result_is_like_query(attention))) return {};
    if (makes_out) out = maker(query);
    if (wanted.lse) lse = row_scores_for(attention.query, query);
  }
  ForwardOutputs outputs{.output = arrays.view("out", out, Access::kWrite)};
  if (wanted.lse) outputs.lse = arrays.view("lse", lse, Access::kWrite);
  const Execution execution = execution_of(arrays, query, wanted.stream);
  {
    const nb::gil_scoped_release released;
    strobe::forward(attention, outputs, execution);
  }
  return wanted.lse ? nb::object(nb::make_tuple(out, lse)) : out;
}

/// Names of arguments that are no options, as the interpreter keeps them. Others are taken for options, and refused.
struct Names {
  PyObject* out = PyUnicode_InternFromString("out");
  PyObject* return_lse = PyUnicode_InternFromString("return_lse");
  PyObject* stream = PyUnicode_InternFromString("stream");
  PyObject* deterministic = PyUnicode_InternFromString("deterministic");
};
const Names& names() {
  static const Names& kept = *new Names;
  return kept;
}

// strobe.attention.

PyObject* general_attention = nullptr;

/// attention's result for arguments as Python's vectorcall passes them; null if the general function must do it.
nb::object usual_attention(PyObject* const* arguments, Py_ssize_t positional, PyObject* keywords) {
  if (positional != 3) return {};
  const nb::handle query = arguments[0], key = arguments[1], value = arguments[2];
  Arrays arrays(Origin::kUser);
  Attention attention;
  view_inputs(attention, query, key, value, arrays);
  Wanted wanted;
  const Py_ssize_t count = keywords == nullptr ? 0 : PyTuple_Size(keywords);
  for (Py_ssize_t n = 0; n < count; ++n) {
    PyObject* const name = PyTuple_GetItem(keywords, n);
    PyObject* const given = arguments[positional + n];
    if (name == names().out) {
      if (given != Py_None) wanted.out = given;
    } else if (name == names().return_lse) {
      if (!PyBool_Check(given)) return {};
      wanted.lse = given == Py_True;
    } else if (name == names().stream) {
      wanted.stream = given;
    } else {
      set_option(attention, name, given, arrays);
    }
  }
  view_written_cache(attention, key, value, arrays);
  return compute(attention, query, wanted, arrays);
}

PyObject* attention(PyObject*, PyObject* const* arguments, Py_ssize_t positional, PyObject* keywords) {
  try {
    nb::object result = usual_attention(arguments, positional, keywords);
    if (result.is_valid()) return result.release().ptr();
  } catch (const std::exception&) {
    // Nothing was written; the general function will refuse it, too, and say why.
  }
  return PyObject_Vectorcall(general_attention, arguments, std::size_t(positional), keywords);
}

// strobe.torch.attention.

/// What PyTorch says of the present state, by functions without arguments.
struct TorchState {
  PyObject* tensor = attribute("torch", "Tensor");
  PyObject* records = attribute("torch", "is_grad_enabled");
  PyObject* casts = attribute("torch._C", "_is_any_autocast_enabled");
  PyObject* modes = attribute("torch._C", "_len_torch_dispatch_stack");
  PyObject* transforms = attribute("torch._C", "_are_functorch_transforms_active");
  PyObject* forward_mode = nb::module_::import_("torch.autograd.forward_ad").release().ptr();
  PyObject* forward_level = PyUnicode_InternFromString("_current_level");

  static PyObject* attribute(const char* module, const char* name) {
    return nb::object(nb::module_::import_(module).attr(name)).release().ptr();
  }
};

bool says_yes(PyObject* function) {
  const nb::object answer = nb::steal(PyObject_CallNoArgs(function));
  if (!answer.is_valid()) throw nb::python_error();
  return answer.is(Py_True);
}

bool gives_zero(PyObject* function) {
  const nb::object answer = nb::steal(PyObject_CallNoArgs(function));
  if (!answer.is_valid()) throw nb::python_error();
  return nb::cast<int>(answer) == 0;
}

}  // namespace

nb::object quick_attention(nb::handle general) {
  const nb::object documented = general.attr("__doc__");
  static const std::string& text =
      *new std::string("attention(query, key, value, *, out=None, return_lse=False, stream=None, **options)\n--\n\n" +
                       (documented.is_none() ? "" : nb::cast<std::string>(documented)));
  static PyMethodDef method{"attention", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&attention)),
                            METH_FASTCALL | METH_KEYWORDS, text.c_str()};
  general_attention = general.inc_ref().ptr();
  return nb::steal(PyCFunction_NewEx(&method, nullptr, nb::object(general.attr("__module__")).ptr()));
}

nb::object quick_torch_attention(const nb::tuple& arguments, const nb::dict& options) {
  static const TorchState& torch = *new TorchState;
  if (arguments.size() != 3) return nb::none();
  const nb::handle query = arguments[0], key = arguments[1], value = arguments[2];
  for (const nb::handle tensor : {query, key, value}) {
    if (tensor.type().ptr() != torch.tensor) return nb::none();
  }
  if (says_yes(torch.records) || says_yes(torch.casts) || !gives_zero(torch.modes) || says_yes(torch.transforms)) {
    return nb::none();
  }
  if (nb::cast<int>(nb::getattr(torch.forward_mode, torch.forward_level)) >= 0) return nb::none();
  try {
    Arrays arrays(Origin::kOwn);
    Attention attention;
    Wanted wanted;
    view_inputs(attention, query, key, value, arrays);
    for (const auto& [name, given] : options) {
      if (name.is(names().return_lse)) {
        if (!PyBool_Check(given.ptr())) return nb::none();
        wanted.lse = given.is(Py_True);
      } else if (!name.is(names().deterministic)) {  // which is about gradients
        set_option(attention, name, given, arrays);
      }
    }
    if (attention.dropout > 0.0f || attention.bias.given() || attention.sink.given()) return nb::none();
    view_written_cache(attention, key, value, arrays);
    nb::object result = compute(attention, query, wanted, arrays);
    return result.is_valid() ? result : nb::none();
  } catch (const std::exception&) {
    return nb::none();  // nothing was written
  }
}

}  // namespace strobe::python
