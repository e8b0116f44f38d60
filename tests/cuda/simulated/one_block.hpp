// Runs kernels of tests on the simulated GPU, which are functions here.
#pragma once

#include "cuda/simulator/machine.hpp"

namespace strobe::simulator {

/// Whether a block of the kernel comes to its end without an error.
inline bool runs(void (*kernel)(const void* params), const void* params = nullptr, unsigned threads = 64,
                 unsigned seed = 1, std::size_t shared_bytes = 1024) {
  return run(kernel, params, {1, 1, 1}, threads, shared_bytes, {.seed = seed});
}

inline unsigned thread() { return thread_index.x; }

}  // namespace strobe::simulator
