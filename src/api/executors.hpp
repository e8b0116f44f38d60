// The executor of a call.
#pragma once

#include "strobe/attention.hpp"

namespace strobe::api {

inline Executor& executor_of(const Execution& execution) {
  return execution.executor != nullptr ? *execution.executor : default_executor();
}

}  // namespace strobe::api
