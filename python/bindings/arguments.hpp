// From Python's arguments to those of Strobe's C++ functions.
#pragma once

#include "bindings/arrays.hpp"

namespace strobe::python {

/// Sets the option of this name, a string; None changes nothing.
/// @throws TypeError if there is no such option, or its value is of a wrong type; what Arrays::view throws.
void set_option(Attention& attention, nanobind::handle name, nanobind::handle value, Arrays& arrays);
void set_options(Attention& attention, const nanobind::dict& options, Arrays& arrays);

void view_inputs(Attention& attention, nanobind::handle query, nanobind::handle key, nanobind::handle value,
                 Arrays& arrays);
/// Views key and value again, to write to, where the options append to them.
void view_written_cache(Attention& attention, nanobind::handle key, nanobind::handle value, Arrays& arrays);
/// All of these in turn.
Attention attention_of(nanobind::handle query, nanobind::handle key, nanobind::handle value,
                       const nanobind::dict& options, Arrays& arrays);

/// An array that may be None.
Tensor view_if_given(const char* argument, nanobind::handle array, Arrays& arrays, Access access = Access::kRead);

/// `stream` is the address of a cudaStream_t, or None for the stream on which query's library works.
Execution execution_of(const Arrays& arrays, nanobind::handle query, nanobind::handle stream);

/// Whether attention's result has query's shape and type, and query is row-major.
bool result_is_like_query(const Attention& attention);

}  // namespace strobe::python
