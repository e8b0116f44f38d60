// The whole C++ API of Strobe. See docs/ and examples/.
#pragma once

#include "strobe/attention.hpp"
#include "strobe/device.hpp"
#include "strobe/executor.hpp"
#include "strobe/types.hpp"
#include "strobe/version.hpp"
