// The cases that `strobe check` runs by default: every option by itself, both passes, every type.
#pragma once

#include <string>
#include <vector>

namespace strobe::tools {

/// Lines of the case grammar (cases/case.hpp).
std::vector<std::string> basic_cases();

}  // namespace strobe::tools
