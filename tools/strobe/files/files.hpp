// Tensor files by their names: which format, which tensor in it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "files/array.hpp"

namespace strobe::tools {

/// Reads "file.npy", "file.safetensors" (its only tensor, or `default_name`) or "file.safetensors:name".
/// @throws FileError saying what is wrong and where.
StoredArray read_array(const std::string& spec, const std::string& default_name = "");

/// Whether the file is written and read as .safetensors.
bool is_safetensors(const std::string& path);

/// Writes one array as .npy, or any number of named ones as .safetensors, by the name's ending. The file appears whole
/// or not at all.
/// @throws FileError if the ending is another or writing fails.
void write_arrays(const std::string& path, const std::vector<std::pair<std::string, const Array*>>& arrays);

}  // namespace strobe::tools
