// The structures of DLPack, by which array libraries lend each other their memory (github.com/dmlc/dlpack,
// version 1.2). Layouts only, as the specification fixes them; bindings/arrays.cpp uses them.
#pragma once

#include <cstdint>

namespace strobe::python::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3 };

enum TypeCode : std::uint8_t {
  kInt = 0,
  kUnsigned = 1,
  kFloat = 2,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
  kFloat8E4M3 = 10,
  kFloat8E5M2 = 12
};

struct Version {
  std::uint32_t major, minor;
};

struct Device {
  std::int32_t type, index;
};

struct Type {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t rank;
  Type type;
  std::int64_t *shape, *strides;  // in elements; strides may be null before 1.2: row-major
  std::uint64_t byte_offset;
};

/// What a capsule named "dltensor" holds.
struct ManagedTensor {
  Tensor tensor;
  void* owner;
  void (*deleter)(ManagedTensor*);
};

inline constexpr std::uint64_t kReadOnly = 1;

/// What a capsule named "dltensor_versioned" holds.
struct VersionedTensor {
  Version version;
  void* owner;
  void (*deleter)(VersionedTensor*);
  std::uint64_t flags;
  Tensor tensor;
};

/// The functions that a type offers as its attribute __dlpack_c_exchange_api__, a capsule named "dlpack_exchange_api".
/// They return 0, or -1 with a Python exception set.
struct ExchangeTable {
  Version version;
  ExchangeTable* older;
  void* allocate;
  int (*lend)(void* array, VersionedTensor** tensor);
  void* to_python;
  int (*view)(void* array, Tensor* tensor);  // may be null; the array goes on owning what the view points to
  int (*current_stream)(std::int32_t device_type, std::int32_t device_index, void** stream);
};

}  // namespace strobe::python::dlpack
