// numpy's .npy format, versions 1 to 3: a magic string, a Python dictionary literal in text, the raw elements.
#pragma once

#include <string>

#include "files/array.hpp"
#include "files/input_file.hpp"

namespace strobe::tools {

/// @throws FileError saying what is wrong and where.
StoredArray read_npy(InputFile& file);

/// The bytes before the elements of a row-major array. bfloat16 and float8 are written as numpy's extension types are:
/// opaque elements of their size.
std::string npy_header(DataType type, const std::vector<std::int64_t>& shape);

}  // namespace strobe::tools
