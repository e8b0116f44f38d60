// Reading and writing .npy. The header comes from anywhere, so the parser takes nothing on trust: sizes are checked
// before they are used, and only the three keys that the format defines are accepted.
#include "files/npy.hpp"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <cstring>

namespace strobe::tools {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr std::size_t kMagicBytes = 6;
constexpr std::size_t kMostHeaderBytes = 1 << 20;

/// A cursor over the dictionary literal.
class Literal {
 public:
  Literal(const std::string& file, std::string_view text, std::size_t offset)
      : file_(file), text_(text), offset_(offset) {}

  [[noreturn]] void fail(const std::string& expected) const {
    const std::string_view rest = text_.substr(std::min(at_, text_.size()), 16);
    throw FileError(file_, fmt::format("header at byte {}", offset_ + at_),
                    rest.empty() ? "at its end" : "'" + printable(rest) + "'", expected);
  }
  void skip_space() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
  }
  bool take(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void need(char wanted) {
    if (!take(wanted)) fail(fmt::format("'{}'", wanted));
  }
  bool at_end() {
    skip_space();
    return at_ == text_.size();
  }
  std::string quoted() {
    skip_space();
    const char quote = take('\'') ? '\'' : take('"') ? '"' : '\0';
    if (quote == '\0') fail("a quoted string");
    const std::size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) fail("a closed string");
    std::string value(text_.substr(at_, end - at_));
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    skip_space();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    }
    fail("True or False");
  }
  std::vector<std::int64_t> sizes() {
    std::vector<std::int64_t> values;
    need('(');
    while (!take(')')) {
      if (values.size() >= std::size_t(kMaxRank)) fail(fmt::format("at most {} axes", kMaxRank));
      skip_space();
      std::int64_t value = 0;
      const char* first = text_.data() + at_;
      const auto [end, error] = std::from_chars(first, text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0) fail("a size from 0 to 2^63 - 1");
      at_ += std::size_t(end - first);
      values.push_back(value);
      if (!take(',')) {
        need(')');
        break;
      }
    }
    return values;
  }

 private:
  const std::string& file_;
  std::string_view text_;
  std::size_t offset_, at_ = 0;
};

void set_element(const std::string& file, const std::string& descr, StoredArray& array) {
  struct Name {
    const char* text;
    Element element;
  };
  constexpr Name kNames[] = {
      {"b1", Element::kBool},    {"i1", Element::kInt8},    {"u1", Element::kUint8},   {"i2", Element::kInt16},
      {"u2", Element::kUint16},  {"i4", Element::kInt32},   {"u4", Element::kUint32},  {"i8", Element::kInt64},
      {"u8", Element::kUint64},  {"f2", Element::kFloat16}, {"f4", Element::kFloat32}, {"f8", Element::kFloat64},
      {"V1", Element::kOpaque1}, {"V2", Element::kOpaque2}, {"?", Element::kBool},     {"bfloat16", Element::kBFloat16},
  };
  const bool ordered = !descr.empty() && std::strchr("<>|=", descr[0]) != nullptr;
  const std::string name = ordered ? descr.substr(1) : descr;
  for (const Name& known : kNames) {
    if (name != known.text) continue;
    array.element = known.element;
    array.swapped = descr[0] == '>' && size_of(known.element) > 1;
    return;
  }
  throw FileError(file, "header key 'descr'", "'" + printable(descr) + "'",
                  "a plain number type ('<f4', '<f2', '<f8', '<i4', '|b1', '<V2', ...)");
}

}  // namespace

StoredArray read_npy(InputFile& file) {
  char start[8];
  file.read(0, start, sizeof(start), "the .npy magic and version");
  if (std::memcmp(start, kMagic, kMagicBytes) != 0) {
    throw FileError(file.path(), "the magic string at byte 0",
                    "'" + printable(std::string_view(start, kMagicBytes)) + "'", "'\\x93NUMPY'");
  }
  const int version = std::uint8_t(start[6]);
  if (version < 1 || version > 3) {
    throw FileError(file.path(), "the format version at byte 6", std::to_string(version), "1, 2 or 3");
  }
  const std::size_t width = version == 1 ? 2 : 4;
  unsigned char length_bytes[4] = {};
  file.read(8, length_bytes, width, "the header's length");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < width; ++i) length |= std::uint64_t(length_bytes[i]) << (8 * i);
  const std::uint64_t header_at = 8 + width;
  if (length > kMostHeaderBytes || length > file.size() - header_at) {
    throw FileError(file.path(), "the header's length at byte 8", std::to_string(length),
                    fmt::format("at most {} (the file has {} bytes)",
                                std::min<std::uint64_t>(kMostHeaderBytes, file.size() - header_at), file.size()));
  }
  std::string header(length, '\0');
  file.read(header_at, header.data(), length, "the header");

  StoredArray array{.source = file.path()};
  bool has_descr = false, has_order = false, has_shape = false;
  Literal literal(file.path(), header, header_at);
  literal.need('{');
  while (!literal.take('}')) {
    const std::string key = literal.quoted();
    literal.need(':');
    if (key == "descr" && !has_descr) {
      has_descr = true;
      set_element(file.path(), literal.quoted(), array);
    } else if (key == "fortran_order" && !has_order) {
      has_order = true;
      array.fortran_order = literal.boolean();
    } else if (key == "shape" && !has_shape) {
      has_shape = true;
      array.shape = literal.sizes();
    } else {
      throw FileError(file.path(), "a header key", "'" + printable(key) + "'",
                      "one of 'descr', 'fortran_order' and 'shape', once");
    }
    if (!literal.take(',')) {
      literal.need('}');
      break;
    }
  }
  if (!literal.at_end()) literal.fail("the header's end");
  if (!has_descr || !has_order || !has_shape) {
    throw FileError(file.path(), "the header", "'" + printable(header) + "'",
                    "a dictionary with 'descr', 'fortran_order' and 'shape'");
  }

  const auto bytes = checked_bytes(array.shape, size_of(array.element));
  const std::uint64_t data_at = header_at + length, present = file.size() - data_at;
  if (!bytes || *bytes != present) {
    throw FileError(
        file.path(), fmt::format("the data from byte {}", data_at), fmt::format("{} bytes", present),
        fmt::format("{} for shape ({}) of {}", bytes ? fmt::format("{} bytes", *bytes) : "beyond 2^62 bytes",
                    fmt::join(array.shape, ", "), name_of(array.element)));
  }
  if (array.shape.empty()) array.shape = {1};
  array.buffer = Buffer(*bytes);
  file.read(data_at, array.buffer.data(), *bytes, "the data");
  return array;
}

std::string npy_header(DataType type, const std::vector<std::int64_t>& shape) {
  const char* descr = "|V1";
  switch (type) {
    case DataType::kFloat32:
      descr = "<f4";
      break;
    case DataType::kFloat16:
      descr = "<f2";
      break;
    case DataType::kBFloat16:
      descr = "<V2";
      break;
    case DataType::kInt32:
      descr = "<i4";
      break;
    case DataType::kBool:
      descr = "|b1";
      break;
    default:
      break;
  }
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", descr,
                                   fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  constexpr std::size_t kPrefixBytes = 10, kAlignment = 64;
  header.append(kAlignment - (kPrefixBytes + header.size() + 1) % kAlignment, ' ');
  header += '\n';
  const char length[] = {char(header.size() & 0xff), char(header.size() >> 8)};
  return std::string(kMagic, kMagicBytes) + std::string("\x01\x00", 2) + std::string(length, 2) + header;
}

}  // namespace strobe::tools
