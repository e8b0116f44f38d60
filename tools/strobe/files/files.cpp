// Choosing the format by a file's name, and the file operations that both formats share.
#include "files/files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "files/input_file.hpp"
#include "files/npy.hpp"
#include "files/safetensors.hpp"

namespace strobe::tools {
namespace {

bool ends_with(const std::string& text, const char* ending) { return std::string_view(text).ends_with(ending); }

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::size_t kMost = 200;
  std::string safe;
  for (const char c : text.substr(0, kMost)) {
    if (c >= 0x20 && c < 0x7f) {
      safe += c;
    } else {
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return text.size() > kMost ? safe + "..." : safe;
}

InputFile::InputFile(const std::string& path) : path_(path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) throw FileError(path, "the file", "missing", "there");
  if (!std::filesystem::is_regular_file(status)) {
    throw FileError(path, "it", std::filesystem::is_directory(status) ? "a folder" : "no regular file",
                    "a regular file");
  }
  stream_.open(path, std::ios::binary);
  size_ = std::filesystem::file_size(path, error);
  if (!stream_ || error) {
    throw FileError(path, "the file", std::string("unreadable (") + std::strerror(errno) + ")", "readable");
  }
}

void InputFile::read(std::uint64_t offset, void* to, std::uint64_t bytes, const char* what) {
  const std::uint64_t present = offset > size_ ? 0 : size_ - offset;
  if (bytes > present) {
    throw FileError(path_, fmt::format("{} at byte {}", what, offset), fmt::format("cut off after {} bytes", present),
                    fmt::format("{} bytes", bytes));
  }
  if (bytes == 0) return;
  stream_.clear();
  stream_.seekg(std::streamoff(offset));
  stream_.read(static_cast<char*>(to), std::streamsize(bytes));
  if (!stream_) {
    throw FileError(path_, fmt::format("{} at byte {}", what, offset),
                    fmt::format("cut off after {} bytes", std::max<std::streamsize>(stream_.gcount(), 0)),
                    fmt::format("{} bytes", bytes));
  }
}

bool is_safetensors(const std::string& path) { return ends_with(path, ".safetensors"); }

StoredArray read_array(const std::string& spec, const std::string& default_name) {
  std::string path = spec, name = default_name;
  const std::size_t colon = spec.rfind(".safetensors:");
  if (colon != std::string::npos && !std::filesystem::exists(spec)) {
    const std::size_t end = colon + std::strlen(".safetensors");
    path = spec.substr(0, end);
    name = spec.substr(end + 1);
  }
  InputFile file(path);
  if (is_safetensors(path)) return read_safetensors(file, name);
  if (ends_with(path, ".npz")) {
    throw FileError(path, "the file's name", "'.npz'", "'.npy' or '.safetensors' (unpack it: unzip gives .npy files)");
  }
  return read_npy(file);
}

void write_arrays(const std::string& path, const std::vector<std::pair<std::string, const Array*>>& arrays) {
  const bool named = is_safetensors(path);
  if (!named && (!ends_with(path, ".npy") || arrays.size() != 1)) {
    throw FileError(path, "the file's name", "'" + printable(path) + "'",
                    arrays.size() == 1 ? "'.npy' or '.safetensors'" : "'.safetensors' to hold several tensors");
  }
  const std::string header =
      named ? safetensors_header(arrays) : npy_header(arrays[0].second->dtype, arrays[0].second->shape);
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  errno = 0;
  std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
  stream.write(header.data(), std::streamsize(header.size()));
  for (const auto& [name, array] : arrays) {
    stream.write(reinterpret_cast<const char*>(array->buffer.data()), std::streamsize(array->buffer.size()));
  }
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, path, error);
  if (!stream || error) {
    const std::string reason = error ? error.message() : std::strerror(errno);
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw FileError(path, "the file", "not written (" + reason + ")", "writable");
  }
}

}  // namespace strobe::tools
