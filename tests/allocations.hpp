// Counts what operator new hands out in the test program, to hold the library to "run allocates nothing".
#pragma once

#include <cstddef>

namespace strobe::cases {

/// Calls of operator new, on any thread, so far.
std::size_t allocations();

}  // namespace strobe::cases
