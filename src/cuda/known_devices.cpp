// GPUs as their vendor describes them, for plans and tests on machines without them.
#include <cstring>

#include "cuda/kernel_key.hpp"

namespace strobe::cuda {
namespace {

constexpr int kKiB = 1 << 10;
constexpr std::int64_t kMiB = std::int64_t(1) << 20, kGiB = std::int64_t(1) << 30;

constexpr CudaDevice kDevices[] = {
    {0, 80, 80, 108, 163 * kKiB, 164 * kKiB, 40 * kMiB, 80 * kGiB, "A100"},
    {0, 86, 86, 82, 99 * kKiB, 100 * kKiB, 6 * kMiB, 24 * kGiB, "RTX3090"},
    {0, 89, 89, 128, 99 * kKiB, 100 * kKiB, 72 * kMiB, 24 * kGiB, "RTX4090"},
    {0, 89, 89, 142, 99 * kKiB, 100 * kKiB, 96 * kMiB, 48 * kGiB, "L40S"},
    {0, 90, 90, 132, 227 * kKiB, 228 * kKiB, 50 * kMiB, 80 * kGiB, "H100", true},
    {0, 90, 90, 132, 227 * kKiB, 228 * kKiB, 50 * kMiB, 141 * kGiB, "H200", true},
    {0, 100, 100, 148, 227 * kKiB, 228 * kKiB, 126 * kMiB, 180 * kGiB, "B200", true},
    {0, 120, 120, 170, 99 * kKiB, 100 * kKiB, 96 * kMiB, 32 * kGiB, "RTX5090", true},
};

}  // namespace

std::span<const CudaDevice> known_devices() { return kDevices; }

const CudaDevice* known_device(const std::string& name) {
  for (const CudaDevice& device : kDevices) {
    if (strcasecmp(device.name, name.c_str()) == 0 || "sm_" + std::to_string(device.architecture) == name) {
      return &device;
    }
  }
  return nullptr;
}

}  // namespace strobe::cuda
