// Reading and writing .safetensors. The header comes from anywhere: its length, nesting, shapes and offsets are checked
// before anything is allocated by them.
#include "files/safetensors.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace strobe::tools {
namespace {

using nlohmann::json;

constexpr std::uint64_t kPrefixBytes = 8;
constexpr std::uint64_t kMostJsonBytes = 100'000'000;  // the format's own limit
constexpr int kMostDepth = 4;                          // {name: {shape: [n]}}, and a level of metadata

struct TypeName {
  const char* text;
  Element element;
};
constexpr TypeName kTypeNames[] = {
    {"BOOL", Element::kBool},          {"I8", Element::kInt8},
    {"U8", Element::kUint8},           {"I16", Element::kInt16},
    {"U16", Element::kUint16},         {"I32", Element::kInt32},
    {"U32", Element::kUint32},         {"I64", Element::kInt64},
    {"U64", Element::kUint64},         {"F16", Element::kFloat16},
    {"BF16", Element::kBFloat16},      {"F32", Element::kFloat32},
    {"F64", Element::kFloat64},        {"F8_E4M3", Element::kFloat8E4M3},
    {"F8_E5M2", Element::kFloat8E5M2},
};

json parse_header(const InputFile& file, const std::string& text) {
  const auto guard = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMostDepth) {
      throw FileError(file.path(), "the header's nesting", "deeper than " + std::to_string(kMostDepth) + " levels",
                      "an object of {dtype, shape, data_offsets}");
    }
    return true;
  };
  json header;
  try {
    header = json::parse(text, guard);
  } catch (const json::exception& error) {
    throw FileError(file.path(), "the header at byte 8", "no JSON (" + printable(error.what()) + ")", "a JSON object");
  }
  if (!header.is_object()) throw FileError(file.path(), "the header at byte 8", header.type_name(), "a JSON object");
  return header;
}

std::string names_in(const json& header) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    if (names.size() == 12) {
      names.push_back("...");
      break;
    }
    names.push_back("'" + printable(name) + "'");
  }
  return names.empty() ? "(the file has no tensors)" : fmt::format("{}", fmt::join(names, ", "));
}

/// The unsigned whole numbers of entry[key].
std::vector<std::int64_t> whole_numbers(const std::string& source, const json& entry, const char* key) {
  const std::string where = fmt::format("'{}'", key);
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) {
    throw FileError(source, where, found == entry.end() ? "missing" : found->type_name(), "an array of whole numbers");
  }
  std::vector<std::int64_t> values;
  for (const json& value : *found) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t(INT64_MAX)) {
      throw FileError(source, where, printable(value.dump()), "an array of whole numbers from 0 to 2^63 - 1");
    }
    values.push_back(value.get<std::int64_t>());
  }
  return values;
}

}  // namespace

StoredArray read_safetensors(InputFile& file, const std::string& name) {
  unsigned char prefix[kPrefixBytes];
  file.read(0, prefix, kPrefixBytes, "the header's length");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kPrefixBytes; ++i) length |= std::uint64_t(prefix[i]) << (8 * i);
  const std::uint64_t most = std::min(kMostJsonBytes, file.size() - kPrefixBytes);
  if (length > most) {
    throw FileError(file.path(), "the header's length at byte 0", std::to_string(length),
                    fmt::format("at most {} (the file has {} bytes)", most, file.size()));
  }
  std::string text(length, '\0');
  file.read(kPrefixBytes, text.data(), length, "the header");
  const json header = parse_header(file, text);

  std::string chosen = name;
  if (name.empty()) {
    for (const auto& [key, entry] : header.items()) {
      if (key == "__metadata__") continue;
      if (!chosen.empty()) throw FileError(file.path(), "the tensor's name", "not given", "one of " + names_in(header));
      chosen = key;
    }
  }
  const auto entry = header.find(chosen);
  if (chosen.empty() || chosen == "__metadata__" || entry == header.end()) {
    throw FileError(file.path(), "the tensor's name", "'" + printable(chosen) + "'", "one of " + names_in(header));
  }

  StoredArray array{.source = file.path() + ": '" + printable(chosen) + "'"};
  if (!entry->is_object()) throw FileError(array.source, "the entry", entry->type_name(), "a JSON object");
  const auto type = entry->find("dtype");
  const TypeName* known = nullptr;
  if (type != entry->end() && type->is_string()) {
    for (const TypeName& candidate : kTypeNames) {
      if (type->get_ref<const std::string&>() == candidate.text) known = &candidate;
    }
  }
  if (known == nullptr) {
    throw FileError(array.source, "'dtype'", type == entry->end() ? "missing" : printable(type->dump()),
                    "F32, F16, BF16, F64, F8_E4M3, F8_E5M2, BOOL or an integer type");
  }
  array.element = known->element;
  array.shape = whole_numbers(array.source, *entry, "shape");
  if (array.shape.size() > std::size_t(kMaxRank)) {
    throw FileError(array.source, "'shape'", fmt::format("of {} axes", array.shape.size()),
                    fmt::format("of at most {}", kMaxRank));
  }
  const auto offsets = whole_numbers(array.source, *entry, "data_offsets");
  const std::int64_t present = std::int64_t(file.size() - kPrefixBytes - length);
  const std::string found = fmt::format("({})", fmt::join(offsets, ", "));
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > present) {
    throw FileError(array.source, "'data_offsets'", found,
                    fmt::format("a first and a last byte within the {} bytes of data that the file has", present));
  }
  const auto bytes = checked_bytes(array.shape, size_of(array.element));
  if (!bytes || std::int64_t(*bytes) != offsets[1] - offsets[0]) {
    throw FileError(
        array.source, "'data_offsets'", found,
        fmt::format("{} apart for shape ({}) of {}", bytes ? std::to_string(*bytes) : "more than 2^62 bytes",
                    fmt::join(array.shape, ", "), name_of(array.element)));
  }
  if (array.shape.empty()) array.shape = {1};
  array.buffer = Buffer(*bytes);
  file.read(kPrefixBytes + length + std::uint64_t(offsets[0]), array.buffer.data(), *bytes, "the data");
  return array;
}

std::string safetensors_header(const std::vector<std::pair<std::string, const Array*>>& tensors) {
  nlohmann::ordered_json header;
  std::uint64_t offset = 0;
  for (const auto& [name, array] : tensors) {
    const char* type = "F32";
    switch (array->dtype) {
      case DataType::kFloat32:
        break;
      case DataType::kFloat16:
        type = "F16";
        break;
      case DataType::kBFloat16:
        type = "BF16";
        break;
      case DataType::kFloat8E4M3:
        type = "F8_E4M3";
        break;
      case DataType::kFloat8E5M2:
        type = "F8_E5M2";
        break;
      case DataType::kInt32:
        type = "I32";
        break;
      case DataType::kBool:
        type = "BOOL";
        break;
    }
    const std::uint64_t end = offset + array->buffer.size();
    header[name] = {{"dtype", type}, {"shape", array->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string prefix(kPrefixBytes, '\0');
  for (std::size_t i = 0; i < kPrefixBytes; ++i) prefix[i] = char(text.size() >> (8 * i));
  return prefix + text;
}

}  // namespace strobe::tools
