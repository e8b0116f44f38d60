// Names of the enumerations, the error, and the version.
#include "strobe/types.hpp"

#include "base/device.hpp"
#include "strobe/version.hpp"

#define STROBE_TEXT_OF(x) #x
#define STROBE_TEXT(x) STROBE_TEXT_OF(x)

namespace strobe {

const char* name_of(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return "float32";
    case DataType::kFloat16:
      return "float16";
    case DataType::kBFloat16:
      return "bfloat16";
    case DataType::kFloat8E4M3:
      return "float8_e4m3";
    case DataType::kFloat8E5M2:
      return "float8_e5m2";
    case DataType::kInt32:
      return "int32";
    case DataType::kBool:
      return "bool";
  }
  return "unknown";
}

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kSse4:
      return "sse4";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmxBf16:
      return "amx_bf16";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string argument, std::string was, std::string must_be)
    : std::runtime_error(argument + " is " + was + ", must be " + must_be),
      code_(code),
      argument_(std::move(argument)),
      was_(std::move(was)),
      must_be_(std::move(must_be)) {}

const char* version() {
  return STROBE_TEXT(STROBE_VERSION_MAJOR) "." STROBE_TEXT(STROBE_VERSION_MINOR) "." STROBE_TEXT(STROBE_VERSION_PATCH);
}

}  // namespace strobe
