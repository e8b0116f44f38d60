// The .safetensors format: the header's length in 8 bytes, a JSON object of named tensors, the raw elements.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "files/array.hpp"
#include "files/input_file.hpp"

namespace strobe::tools {

/// Reads one tensor by its name. An empty name means the file's only tensor.
/// @throws FileError saying what is wrong and where; an unknown name lists the names that the file has.
StoredArray read_safetensors(InputFile& file, const std::string& name);

/// The bytes before the elements of row-major tensors that follow one another in this order.
std::string safetensors_header(const std::vector<std::pair<std::string, const Array*>>& tensors);

}  // namespace strobe::tools
