// The rules that hold for any tensor (shape, type, layout, memory) and the words in which their breach is told.
// The rules about one attention call (rules.hpp) are written in these.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "check/check.hpp"

namespace strobe::check {

/// No axis is longer, so positions and products of two of them are safe in 64 bits.
inline constexpr std::int64_t kMaxAxis = 0x7fffffff;
/// No tensor of rows has more elements and none spans more bytes, so sizes and workspaces are safe in 64 bits.
inline constexpr std::int64_t kMaxElements = std::int64_t(1) << 44;
inline constexpr std::int64_t kMaxBytes = std::int64_t(1) << 56;

/// One axis of an expected shape.
struct Axis {
  static constexpr std::int64_t kAnySize = -1;

  const char* name;
  std::int64_t size = kAnySize;
  enum class Rule { kEqual, kEqualOrOne, kAny, kAtLeastOne } rule = Rule::kEqual;
};
inline constexpr Axis any_size(const char* name) { return {name, Axis::kAnySize, Axis::Rule::kAny}; }
inline constexpr Axis positive(const char* name) { return {name, Axis::kAnySize, Axis::Rule::kAtLeastOne}; }
inline constexpr Axis or_one(const char* name, std::int64_t size) { return {name, size, Axis::Rule::kEqualOrOne}; }

/// A set of element types, and why just these.
struct Types {
  unsigned set;
  const char* reason = "";
};
/// No bit for values of the enumeration that do not exist.
inline constexpr unsigned bit(DataType type) { return unsigned(type) < 32 ? 1u << unsigned(type) : 0; }
inline constexpr unsigned kWideFloats = bit(DataType::kFloat32) | bit(DataType::kFloat16) | bit(DataType::kBFloat16);
inline constexpr unsigned kFloat8s = bit(DataType::kFloat8E4M3) | bit(DataType::kFloat8E5M2);
inline constexpr Types kInt32{bit(DataType::kInt32)};
inline constexpr Types kFloat32{bit(DataType::kFloat32)};
inline constexpr Types kBool{bit(DataType::kBool)};

inline constexpr bool contains(unsigned set, DataType type) { return (set & bit(type)) != 0; }

/// "float16 [2, 128, 3, 64]", or "not given".
std::string describe(const Tensor& tensor);

[[noreturn]] void refuse(const char* argument, std::string was, std::string must_be,
                         ErrorCode code = ErrorCode::kInvalidArgument);
/// was = describe(tensor).
[[noreturn]] void refuse(const char* argument, const Tensor& tensor, std::string must_be,
                         ErrorCode code = ErrorCode::kInvalidArgument);

/// What the tensor's innermost stride may be (axes of size 0 or 1 may have any).
enum class Innermost { kOne, kOneOrZero, kAny };

/// Whether the product of the sizes, of which those below 1 do not count, is no larger. Takes no division.
bool product_is_at_most(std::int64_t limit, std::span<const std::int64_t> sizes);

void expect_shape(const char* argument, const Tensor& tensor, std::initializer_list<Axis> axes);
void expect_type(const char* argument, const Tensor& tensor, Types types);
void expect_layout(const char* argument, const Tensor& tensor, Innermost innermost = Innermost::kOne);
/// Two elements of an output must not share memory.
void expect_distinct_elements(const char* argument, const Tensor& tensor);
void expect_memory(const char* argument, const Tensor& tensor, Data data);

/// All rules of an input: shape, type, layout, memory.
void expect_input(const char* argument, const Tensor& tensor, Types types, std::initializer_list<Axis> axes, Data data,
                  Innermost innermost = Innermost::kOne);
/// All rules of an output: those of an input, and distinct elements.
void expect_output(const char* argument, const Tensor& tensor, Types types, std::initializer_list<Axis> axes,
                   Data data);
/// Tensors of rows are bounded in elements as well: workspaces are sized by them.
void expect_countable(const char* argument, const Tensor& tensor);

}  // namespace strobe::check
