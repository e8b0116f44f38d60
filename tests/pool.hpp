// The threads that tests run kernels on: two, whatever the machine has.
#pragma once

#include <memory>

#include "strobe/executor.hpp"

namespace strobe::cases {

inline Executor& pool() {
  static const std::unique_ptr<Executor> threads = make_thread_pool(2);
  return *threads;
}

}  // namespace strobe::cases
