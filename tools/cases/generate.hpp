// Seeded random cases over every option in valid combinations.
#pragma once

#include "cases/case.hpp"

namespace strobe::cases {

/// A small problem of some options; the same seed gives the same case.
Case random_case(std::uint64_t seed);

}  // namespace strobe::cases
