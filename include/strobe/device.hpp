// Where a call runs: on the processor, or on an NVIDIA GPU through the driver that is found at run time.
#pragma once

#include <cstdint>
#include <string>

#include "strobe/types.hpp"

namespace strobe {

/// Values are part of the ABI.
enum class DeviceKind : std::int32_t { kCpu = 0, kCuda = 1 };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  std::int32_t index = 0;  ///< of a GPU, as CUDA counts them in this process (CUDA_VISIBLE_DEVICES)
  bool operator==(const Device&) const = default;
};

/// How many CUDA devices calls can run on. 0 also where there is no driver; describe() tells what is missing.
STROBE_API int cuda_device_count();

/// One line: "NVIDIA H200: architecture 90, 132 multiprocessors, 139.8 GiB".
/// @throws Error (kUnsupported) naming what is missing: the driver, a new enough one, or such a device.
STROBE_API std::string describe(Device device);

}  // namespace strobe
