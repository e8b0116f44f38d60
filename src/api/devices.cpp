// The public questions about devices.
#include "strobe/device.hpp"

#include <cstdio>
#include <string>

#include "api/executors.hpp"
#include "check/check.hpp"
#include "cpu/cpu.hpp"
#include "cuda/cuda.hpp"

namespace strobe {

int cuda_device_count() { return cuda::device_count(); }

std::string describe(Device device) {
  check::device({.device = device});
  if (device.kind == DeviceKind::kCpu) {
    return std::string("CPU: ") + name_of(cpu::this_machine().best) + ", " +
           std::to_string(default_executor().concurrency()) + " threads";
  }
  const CudaDevice& gpu = cuda::device(device.index);
  char memory[32];
  std::snprintf(memory, sizeof memory, "%.1f GiB", double(gpu.memory_bytes) / double(1 << 30));
  return std::string(gpu.name) + ": architecture " + std::to_string(gpu.architecture) + ", " +
         std::to_string(gpu.multiprocessors) + " multiprocessors, " + memory;
}

}  // namespace strobe
