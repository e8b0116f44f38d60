// Looks at the GPUs once and keeps what every call on them needs.
#include "cuda/host/devices.hpp"

#include <memory>

#include "cuda/cuda.hpp"
#include "cuda/host/capture.hpp"
#include "cuda/kernel_key.hpp"

namespace strobe::cuda {
namespace {

/// What the pool keeps between calls; the rest goes back to the system when a stream is waited for.
constexpr unsigned long long kKeptBytes = 512ull << 20;

struct Devices {
  std::string why_none;
  std::vector<std::unique_ptr<DeviceState>> states;
};

const Devices& devices() {
  static const Devices& found = *new Devices([] {
    Devices result;
    for (const CudaDevice& description : describe_devices(driver(), result.why_none)) {
      result.states.push_back(std::make_unique<DeviceState>(driver(), description));
    }
    return result;
  }());
  return found;
}

int attribute(const Driver& driver, CuDeviceAttribute which, CuDevice device) {
  int value = 0;
  return driver.device_attribute(&value, which, device) == kCuSuccess ? value : 0;
}

}  // namespace

std::vector<CudaDevice> describe_devices(const Driver& driver, std::string& why_none) {
  std::vector<CudaDevice> result;
  why_none = driver.missing;
  if (!driver.usable()) return result;
  int count = 0;
  const CuResult answer = driver.device_count(&count);
  for (int index = 0; index < count; ++index) {
    CuDevice handle = 0;
    if (driver.device_get(&handle, index) != kCuSuccess) break;
    CudaDevice device;
    device.index = index;
    device.capability =
        attribute(driver, kCuCapabilityMajor, handle) * 10 + attribute(driver, kCuCapabilityMinor, handle);
    device.architecture = architecture_of(device.capability);
    device.multiprocessors = attribute(driver, kCuMultiprocessors, handle);
    device.shared_bytes_per_block = attribute(driver, kCuSharedPerBlockOptIn, handle);
    device.shared_bytes_per_multiprocessor = attribute(driver, kCuSharedPerMultiprocessor, handle);
    device.l2_bytes = attribute(driver, kCuL2Bytes, handle);
    std::size_t memory = 0;
    driver.device_memory(&memory, handle);
    device.memory_bytes = std::int64_t(memory);
    driver.device_name(device.name, sizeof device.name, handle);
    device.tensor_maps = device.architecture >= 90 && driver.encode_tensor_map != nullptr;
    result.push_back(device);
  }
  if (result.empty()) {
    why_none = "the NVIDIA driver sees no GPU";
    if (answer != kCuSuccess) why_none += " (" + driver.describe(answer) + ")";
  }
  return result;
}

DeviceState::DeviceState(const Driver& driver, const CudaDevice& description)
    : driver_(driver), description_(description) {
  require(driver_.device_get(&handle_, description.index), "looking up a GPU");
  has_pools_ = attribute(driver_, kCuMemoryPools, handle_) != 0;
}

CuContext DeviceState::primary_context() {
  CuContext context = context_.load(std::memory_order_acquire);
  if (context != nullptr) return context;
  const std::lock_guard lock(mutex_);
  context = context_.load(std::memory_order_relaxed);
  if (context == nullptr) {
    const CaptureRelaxed relaxed;
    require(driver_.primary_retain(&context, handle_), "making a context on the GPU");
    context_.store(context, std::memory_order_release);
  }
  return context;
}

void DeviceState::forget_context(CuContext context) {
  const std::lock_guard lock(mutex_);
  if (context_.load(std::memory_order_relaxed) != context) return;
  context_.store(nullptr, std::memory_order_release);
  pool_.store(nullptr, std::memory_order_release);
}

CuPool DeviceState::pool() {
  CuPool pool = pool_.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  if (!has_pools_) {
    throw Error(ErrorCode::kUnsupported, "execution.workspace", "not given",
                "given: this GPU and driver have no stream-ordered memory to take it from");
  }
  const std::lock_guard lock(mutex_);
  pool = pool_.load(std::memory_order_relaxed);
  if (pool == nullptr) {
    const CaptureRelaxed relaxed;
    CuPoolProperties properties;
    properties.location_device = handle_;
    require(driver_.pool_create(&pool, &properties), "making a memory pool");
    unsigned long long kept = kKeptBytes;
    require(driver_.pool_set_attribute(pool, kCuPoolReleaseThreshold, &kept), "setting up a memory pool");
    pool_.store(pool, std::memory_order_release);
  }
  return pool;
}

DeviceState& device_state(int index) {
  const Devices& all = devices();
  if (index >= 0 && index < int(all.states.size())) return *all.states[index];
  const std::string name = "cuda:" + std::to_string(index);
  if (all.states.empty()) {
    throw Error(ErrorCode::kUnsupported, "execution.device", name + ", but " + all.why_none,
                "cpu, or cuda where there is an NVIDIA GPU of architecture 8.0 or later and its driver");
  }
  throw Error(ErrorCode::kInvalidArgument, "execution.device", name,
              all.states.size() == 1 ? "cuda:0, the only GPU here"
                                     : "one of cuda:0 to cuda:" + std::to_string(all.states.size() - 1));
}

int device_count() { return int(devices().states.size()); }
const std::string& why_no_device() { return devices().why_none; }
const CudaDevice& device(int index) { return device_state(index).description(); }

}  // namespace strobe::cuda
