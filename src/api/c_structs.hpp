// The C structs of strobe.h as the C++ API's. A caller built against another version of the header has smaller or
// larger structs: what it lacks is zero, and what this library does not know must be zero.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "strobe/attention.hpp"
#include "strobe/strobe.h"

namespace strobe::api {

static_assert(sizeof(strobe_tensor) == sizeof(Tensor) && alignof(strobe_tensor) == alignof(Tensor));
static_assert(offsetof(strobe_tensor, dtype) == offsetof(Tensor, dtype));
static_assert(offsetof(strobe_tensor, rank) == offsetof(Tensor, rank));
static_assert(offsetof(strobe_tensor, shape) == offsetof(Tensor, shape));
static_assert(offsetof(strobe_tensor, strides) == offsetof(Tensor, strides));

inline Tensor tensor_of(const strobe_tensor& tensor) { return std::bit_cast<Tensor>(tensor); }

/// `given`, or a pointer to `own` filled with what the caller's struct has of it.
template <typename Struct>
const Struct& known_part(const char* argument, const Struct* given, Struct& own) {
  if (given == nullptr) throw Error(ErrorCode::kInvalidArgument, argument, "null", "a pointer to a struct");
  const std::size_t size = given->struct_size;
  if (size == sizeof(Struct)) return *given;
  if (size < sizeof(std::size_t)) {
    throw Error(ErrorCode::kInvalidArgument, argument, "of struct_size " + std::to_string(size),
                "initialised with STROBE_INIT, which sets struct_size to " + std::to_string(sizeof(Struct)));
  }
  const char* bytes = reinterpret_cast<const char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i) {
    if (bytes[i] == 0) continue;
    throw Error(ErrorCode::kUnsupported, argument, "set beyond the " + std::to_string(sizeof(Struct)) + " known bytes",
                "used with a library at least as new as the header");
  }
  own = Struct{};
  std::memcpy(&own, given, std::min(size, sizeof(Struct)));
  return own;
}

Attention attention_of(const strobe_attention* given);
ForwardOutputs outputs_of(const strobe_forward_outputs* given);
BackwardInputs inputs_of(const strobe_backward_inputs* given);
Gradients gradients_of(const strobe_gradients* given);

}  // namespace strobe::api
