// The tensors of an attention problem that come from files or from lists on the command line.
#pragma once

#include <CLI/App.hpp>
#include <deque>
#include <string>
#include <vector>

#include "files/array.hpp"
#include "strobe/strobe.hpp"

namespace strobe::tools {

/// The flags that name tensors.
struct InputFlags {
  std::vector<std::string> files;                              // one with three tensors, or three
  std::vector<std::string> names = {"query", "key", "value"};  // in a .safetensors file
  std::string query, key, value;
  std::vector<std::string> optional;  // parallel to the table of optional tensors
  std::string layout = "bshd", dtype;

  void declare(CLI::App& command);
};

/// Tensors of a call and the memory that they view.
struct Inputs {
  Attention attention;
  std::vector<std::int64_t> query_shape;  // as stored, before batch and head axes were added
  std::vector<std::string> notes;         // conversions that nobody asked for
  std::deque<Array> arrays;
};

/// Reads everything. `attention` carries the options that say how tensors are to be read (block sizes do not matter).
/// @throws UsageError, FileError
Inputs read_inputs(const InputFlags& flags, const Attention& options);

/// A [batch, length, heads, dim] (packed: [total, heads, dim]) view of a stored array, which may lack its first and
/// its heads axis and may have heads before length ("bhsd").
Tensor rows_view(const Tensor& stored, const std::string& layout, bool packed, const char* name);

}  // namespace strobe::tools
