// Arrays read from files: owned memory with an element type, a shape and strides, and the conversions that turn what a
// file holds into what the library takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "strobe/types.hpp"

namespace strobe::tools {

/// Memory aligned to 64 bytes.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

/// A row-major tensor that owns its memory.
struct Array {
  Buffer buffer;
  DataType dtype = DataType::kFloat32;
  std::vector<std::int64_t> shape;

  Array() = default;
  /// @throws std::length_error for more than kMaxRank axes or a size that no memory holds.
  Array(DataType type, std::vector<std::int64_t> sizes);
  Tensor view() const;
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(buffer.data());
  }
};

/// Element types that files hold. kOpaque: bytes without a meaning, as numpy stores types it does not know.
enum class Element {
  kBool,
  kInt8,
  kUint8,
  kInt16,
  kUint16,
  kInt32,
  kUint32,
  kInt64,
  kUint64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kFloat8E4M3,
  kFloat8E5M2,
  kOpaque1,
  kOpaque2,
};

std::size_t size_of(Element element);
const char* name_of(Element element);

/// An array as a file stores it.
struct StoredArray {
  std::string source;  // file, and the tensor's name in it, for messages
  Element element = Element::kFloat32;
  bool swapped = false;        // big-endian
  bool fortran_order = false;  // first axis fastest
  std::vector<std::int64_t> shape{};
  Buffer buffer{};
};

/// Bytes of an array, or nothing if the number of elements (zero sizes counted as one, so that strides fit as well) or
/// of bytes is beyond 2^62.
std::optional<std::size_t> checked_bytes(const std::vector<std::int64_t>& shape, std::size_t element_bytes);

/// Floating-point data in type `wanted`, or in its own type (float64: float32). Two-byte and one-byte opaque or
/// unsigned elements are taken to be of type `wanted` where that is bfloat16 or a float8 type. A lossy change of type
/// that nobody asked for is described in `note`.
/// @throws FileError if the elements are no numbers of that kind.
Array to_floats(StoredArray stored, std::optional<DataType> wanted, std::string& note);
/// @throws FileError if an element is no whole number or does not fit 32 bits.
Array to_ints(StoredArray stored);
Array to_bools(StoredArray stored);

/// The same numbers in another floating-point type.
Array convert(const Tensor& from, DataType to);

}  // namespace strobe::tools
