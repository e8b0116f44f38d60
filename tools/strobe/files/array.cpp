// Conversions between what files hold and what the library takes.
#include "files/array.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "base/half.hpp"
#include "errors.hpp"

namespace strobe::tools {
namespace {

constexpr std::size_t kAlignment = 64;

void swap_bytes(StoredArray& array) {
  const std::size_t width = size_of(array.element);
  std::byte* bytes = array.buffer.data();
  for (std::size_t at = 0; at + width <= array.buffer.size(); at += width) {
    std::reverse(bytes + at, bytes + at + width);
  }
}

/// First axis fastest -> last axis fastest.
void make_row_major(StoredArray& array) {
  const int rank = int(array.shape.size());
  const std::size_t width = size_of(array.element);
  Buffer ordered(array.buffer.size());
  std::vector<std::int64_t> strides(array.shape.size()), index(array.shape.size());
  std::int64_t stride = 1;
  for (int axis = 0; axis < rank; ++axis) {
    strides[axis] = stride;
    stride *= array.shape[axis];
  }
  std::int64_t from = 0;
  for (std::size_t to = 0; to < array.buffer.size(); to += width) {
    std::memcpy(ordered.data() + to, array.buffer.data() + std::size_t(from) * width, width);
    for (int axis = rank - 1; axis >= 0; --axis) {
      from += strides[axis];
      if (++index[axis] < array.shape[axis]) break;
      from -= strides[axis] * array.shape[axis];
      index[axis] = 0;
    }
  }
  array.buffer = std::move(ordered);
}

void normalise(StoredArray& array) {
  if (array.swapped) swap_bytes(array);
  if (array.fortran_order && array.shape.size() > 1) make_row_major(array);
  array.swapped = array.fortran_order = false;
}

template <typename T>
T element_at(const StoredArray& array, std::size_t index) {
  T value;
  std::memcpy(&value, array.buffer.data() + index * sizeof(T), sizeof(T));
  return value;
}

std::int64_t integer_at(const StoredArray& array, std::size_t index) {
  switch (array.element) {
    case Element::kBool:
    case Element::kUint8:
      return element_at<std::uint8_t>(array, index);
    case Element::kInt8:
      return element_at<std::int8_t>(array, index);
    case Element::kInt16:
      return element_at<std::int16_t>(array, index);
    case Element::kUint16:
      return element_at<std::uint16_t>(array, index);
    case Element::kInt32:
      return element_at<std::int32_t>(array, index);
    case Element::kUint32:
      return element_at<std::uint32_t>(array, index);
    case Element::kUint64:
      return std::int64_t(std::min<std::uint64_t>(element_at<std::uint64_t>(array, index), INT64_MAX));
    default:
      return element_at<std::int64_t>(array, index);
  }
}

bool is_whole(Element element) { return element <= Element::kUint64; }

std::optional<DataType> floating_type(Element element) {
  switch (element) {
    case Element::kFloat16:
      return DataType::kFloat16;
    case Element::kBFloat16:
      return DataType::kBFloat16;
    case Element::kFloat32:
      return DataType::kFloat32;
    case Element::kFloat8E4M3:
      return DataType::kFloat8E4M3;
    case Element::kFloat8E5M2:
      return DataType::kFloat8E5M2;
    default:
      return std::nullopt;
  }
}

/// numpy has no bfloat16 and no float8: files hold them as opaque bytes or as unsigned integers.
bool stands_for(Element element, DataType type) {
  if (type == DataType::kBFloat16) return element == Element::kOpaque2 || element == Element::kUint16;
  if (type == DataType::kFloat8E4M3 || type == DataType::kFloat8E5M2) {
    return element == Element::kOpaque1 || element == Element::kUint8;
  }
  return false;
}

Array adopt(StoredArray& stored, DataType type) {
  Array array;
  array.buffer = std::move(stored.buffer);
  array.dtype = type;
  array.shape = std::move(stored.shape);
  return array;
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : size_(bytes) {
  const std::size_t rounded = std::max<std::size_t>(bytes, 1) + (kAlignment - 1);
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded / kAlignment * kAlignment)));
  if (!data_) throw std::bad_alloc();
}

void Buffer::Free::operator()(std::byte* memory) const { std::free(memory); }

std::optional<std::size_t> checked_bytes(const std::vector<std::int64_t>& shape, std::size_t element_bytes) {
  constexpr std::int64_t kMost = std::int64_t(1) << 62;
  std::int64_t span = std::int64_t(element_bytes), bytes = span;
  for (std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(span, std::max<std::int64_t>(size, 1), &span) || span > kMost) {
      return std::nullopt;
    }
    bytes *= size;
  }
  return std::size_t(bytes);
}

Array::Array(DataType type, std::vector<std::int64_t> sizes) : dtype(type), shape(std::move(sizes)) {
  const auto bytes = checked_bytes(shape, strobe::size_of(type));
  if (shape.size() > std::size_t(kMaxRank) || !bytes) throw std::length_error("array too large");
  buffer = Buffer(*bytes);
}

Tensor Array::view() const {
  Tensor view{.data = buffer.data(), .dtype = dtype, .rank = std::int32_t(shape.size())};
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    stride *= std::max<std::int64_t>(shape[axis], 1);
  }
  return view;
}

std::size_t size_of(Element element) {
  switch (element) {
    case Element::kInt64:
    case Element::kUint64:
    case Element::kFloat64:
      return 8;
    case Element::kInt32:
    case Element::kUint32:
    case Element::kFloat32:
      return 4;
    case Element::kInt16:
    case Element::kUint16:
    case Element::kFloat16:
    case Element::kBFloat16:
    case Element::kOpaque2:
      return 2;
    default:
      return 1;
  }
}

const char* name_of(Element element) {
  constexpr const char* kNames[] = {"bool",          "int8",          "uint8",   "int16",       "uint16",
                                    "int32",         "uint32",        "int64",   "uint64",      "float16",
                                    "bfloat16",      "float32",       "float64", "float8_e4m3", "float8_e5m2",
                                    "1 opaque byte", "2 opaque bytes"};
  return kNames[int(element)];
}

Array to_floats(StoredArray stored, std::optional<DataType> wanted, std::string& note) {
  normalise(stored);
  if (wanted && stands_for(stored.element, *wanted)) return adopt(stored, *wanted);
  if (const auto type = floating_type(stored.element)) {
    Array array = adopt(stored, *type);
    return wanted && *wanted != *type ? convert(array.view(), *wanted) : std::move(array);
  }
  if (stored.element == Element::kFloat64) {
    if (!wanted) note = stored.source + ": float64 converted to float32";
    Array array(wanted.value_or(DataType::kFloat32), stored.shape);
    for (std::size_t i = 0; i < stored.buffer.size() / 8; ++i) {
      store_element(array.buffer.data(), array.dtype, std::int64_t(i), float(element_at<double>(stored, i)));
    }
    return array;
  }
  const bool narrow = size_of(stored.element) <= 2 && stored.element != Element::kBool;
  throw FileError(stored.source, "element type", name_of(stored.element),
                  narrow && !wanted ? "floating point (or say what the bytes mean: --dtype bfloat16 or float8_e4m3)"
                                    : "floating point");
}

Array to_ints(StoredArray stored) {
  normalise(stored);
  if (!is_whole(stored.element)) {
    throw FileError(stored.source, "element type", name_of(stored.element), "an integer type");
  }
  if (stored.element == Element::kInt32) return adopt(stored, DataType::kInt32);
  const std::size_t count = stored.buffer.size() / size_of(stored.element);
  Array array(DataType::kInt32, stored.shape);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t value = integer_at(stored, i);
    if (value != std::int32_t(value)) {
      throw FileError(stored.source, "element " + std::to_string(i), std::to_string(value), "a 32-bit integer");
    }
    array.as<std::int32_t>()[i] = std::int32_t(value);
  }
  return array;
}

Array to_bools(StoredArray stored) {
  normalise(stored);
  if (!is_whole(stored.element)) {
    throw FileError(stored.source, "element type", name_of(stored.element), "bool or an integer type");
  }
  const std::size_t count = stored.buffer.size() / size_of(stored.element);
  Array array(DataType::kBool, stored.shape);
  for (std::size_t i = 0; i < count; ++i) array.as<std::uint8_t>()[i] = integer_at(stored, i) != 0;
  return array;
}

Array convert(const Tensor& from, DataType to) {
  Array array(to, std::vector<std::int64_t>(from.shape, from.shape + from.rank));
  std::int64_t index[kMaxRank] = {}, at = 0;
  const std::int64_t count = from.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    store_element(array.buffer.data(), to, i, load_element(from.data, from.dtype, at));
    for (int axis = from.rank - 1; axis >= 0; --axis) {
      at += from.strides[axis];
      if (++index[axis] < from.shape[axis]) break;
      at -= from.strides[axis] * from.shape[axis];
      index[axis] = 0;
    }
  }
  return array;
}

}  // namespace strobe::tools
