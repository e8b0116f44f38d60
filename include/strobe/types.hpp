// The words every Strobe call uses: element types, strided tensor views and the error that calls throw.
// Nothing here owns memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#if defined(STROBE_SHARED) && defined(_WIN32)
#define STROBE_API __declspec(dllimport)
#elif defined(__GNUC__)
#define STROBE_API __attribute__((visibility("default")))
#else
#define STROBE_API
#endif

namespace strobe {

/// Element types. Values are part of the ABI.
enum class DataType : std::int32_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kFloat8E4M3 = 3,  ///< OCP FP8 E4M3 ("fn": no infinities, NaN is 0x7f / 0xff)
  kFloat8E5M2 = 4,  ///< OCP FP8 E5M2
  kInt32 = 5,
  kBool = 6,  ///< one byte, zero is false
};

/// Bytes of one element.
constexpr std::size_t size_of(DataType type) {
  switch (type) {
    case DataType::kFloat32:
    case DataType::kInt32:
      return 4;
    case DataType::kFloat16:
    case DataType::kBFloat16:
      return 2;
    default:
      return 1;
  }
}

/// "float32", "bfloat16", ... as messages and the command line spell it.
STROBE_API const char* name_of(DataType type);

inline constexpr int kMaxRank = 5;

/// A view of somebody else's memory: data, type, shape and strides, both counted in elements.
/// A default-constructed Tensor (rank 0) means "not given". Inputs are never written, although `data` is
/// not const: one view type serves inputs and outputs.
struct Tensor {
  void* data = nullptr;
  DataType dtype = DataType::kFloat32;
  std::int32_t rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};

  bool given() const { return rank > 0; }
  std::int64_t elements() const {
    std::int64_t count = 1;
    for (int axis = 0; axis < rank; ++axis) count *= shape[axis];
    return count;
  }

  /// A row-major view of `sizes` elements at `data`.
  static Tensor contiguous(const void* data, DataType dtype, std::initializer_list<std::int64_t> sizes) {
    Tensor view{.data = const_cast<void*>(data), .dtype = dtype};
    for (std::int64_t size : sizes) {
      if (view.rank == kMaxRank) throw std::length_error("strobe::Tensor has at most 5 axes");
      view.shape[view.rank++] = size;
    }
    std::int64_t stride = 1;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      view.strides[axis] = stride;
      stride *= view.shape[axis];
    }
    return view;
  }
};

/// Why a call failed. Values are part of the ABI.
enum class ErrorCode : std::int32_t {
  kInvalidArgument = 1,  ///< an argument breaks a rule; nothing was read or written
  kUnsupported = 2,      ///< a valid request that no kernel on this device serves
  kOutOfMemory = 3,
  kInternal = 4,
};

/// Thrown by every C++ entry point. what() is the whole sentence; the three facts stand alone as well.
class STROBE_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string argument, std::string was, std::string must_be);
  ErrorCode code() const { return code_; }
  const std::string& argument() const { return argument_; }
  const std::string& was() const { return was_; }
  const std::string& must_be() const { return must_be_; }

 private:
  ErrorCode code_;
  std::string argument_, was_, must_be_;
};

}  // namespace strobe
