// Loading and launching what nvrtc.cpp compiles, for the fake driver.
#pragma once

#include "cuda/simulator/machine.hpp"

namespace strobe::simulator {

/// A kernel, and how many of its blocks make a cluster.
struct Kernel {
  void (*run)(const void* params) = nullptr;
  unsigned cluster = 1;
};

/// The kernel of an image; its `run` is null if it is not one for the simulated GPU.
Kernel load(const void* image);

/// Memory whose end is the end of a page, with a page behind it that nobody may touch. 16-byte aligned.
void* allocate_guarded(std::size_t bytes);
void free_guarded(void* memory);

}  // namespace strobe::simulator
