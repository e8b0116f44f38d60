// CUDA graphs and copies within a device, for tests and benchmarks. The library needs neither, so these functions of
// the driver are not in its table.
#pragma once

#include <cstddef>
#include <functional>

#include "cuda/launch.hpp"

namespace strobe::gpu {

/// What calls put on a stream, captured once and launched again and again.
class Graph {
 public:
  /// Calls `work`, which puts everything on `stream` (not the default stream) and waits for nothing.
  Graph(cuda::Stream stream, const std::function<void()>& work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(cuda::Stream stream) const;

 private:
  void* executable_ = nullptr;
  int device_ = 0;
};

/// Copies in the order of the stream, without waiting.
void copy_on_device(cuda::Stream stream, void* to, const void* from, std::size_t bytes);

}  // namespace strobe::gpu
