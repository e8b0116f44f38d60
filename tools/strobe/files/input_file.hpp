// A regular file opened for reading, every read checked against its size.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "errors.hpp"

namespace strobe::tools {

class InputFile {
 public:
  /// @throws FileError if there is no such regular file or it cannot be opened.
  explicit InputFile(const std::string& path);
  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  /// Reads bytes [offset, offset + bytes), which hold `what`.
  /// @throws FileError if the file ends before.
  void read(std::uint64_t offset, void* to, std::uint64_t bytes, const char* what);

 private:
  std::string path_;
  std::uint64_t size_ = 0;
  std::ifstream stream_;
};

}  // namespace strobe::tools
