// A folder for one test's files, and the bytes to fill them with.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "errors.hpp"
#include "files/array.hpp"
#include "files/files.hpp"

namespace strobe::tools {

class Scratch {
 public:
  Scratch() : folder_(std::filesystem::temp_directory_path() / ("strobe_test_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  std::string read(const std::string& name) const {
    std::ostringstream bytes;
    bytes << std::ifstream(path(name), std::ios::binary).rdbuf();
    return bytes.str();
  }

 private:
  std::filesystem::path folder_;
};

/// A version 1 .npy file with this dictionary and data.
inline std::string npy_bytes(const std::string& dictionary, const std::string& data) {
  const std::string length = {char(dictionary.size() & 0xff), char(dictionary.size() >> 8)};
  return std::string("\x93NUMPY\x01\x00", 8) + length + dictionary + data;
}

/// A .safetensors file with this header and data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[std::size_t(i)] = char(header.size() >> (8 * i));
  return length + header + data;
}

template <typename T>
std::string bytes_of(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

/// 0, 1, 2, ... in float32.
inline Array counting(std::vector<std::int64_t> shape) {
  Array array(DataType::kFloat32, std::move(shape));
  for (std::size_t i = 0; i < array.buffer.size() / 4; ++i) array.as<float>()[i] = float(i);
  return array;
}

/// The message of the FileError that reading gives.
inline std::string refusal(const std::string& spec, const std::string& name = "") {
  try {
    read_array(spec, name);
  } catch (const FileError& error) {
    return error.what();
  }
  return "(accepted)";
}

}  // namespace strobe::tools
