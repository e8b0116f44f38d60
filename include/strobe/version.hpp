// The version of the headers, for compile-time checks, and of the library that is linked.
#pragma once

#include "strobe/types.hpp"

#define STROBE_VERSION_MAJOR 0
#define STROBE_VERSION_MINOR 1
#define STROBE_VERSION_PATCH 0

namespace strobe {

/// "0.1.0": the linked library.
STROBE_API const char* version();

}  // namespace strobe
