// The GPUs of this process: their description, their primary contexts, and the memory pools that workspaces come from.
#pragma once

#include <atomic>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/device.hpp"
#include "cuda/host/driver.hpp"

namespace strobe::cuda {

/// Asks the driver about every device. Where there is none, `why_none` says why.
std::vector<CudaDevice> describe_devices(const Driver& driver, std::string& why_none);

/// One GPU in use. Its context and pool are made on first use and kept until the process ends.
class DeviceState {
 public:
  DeviceState(const Driver& driver, const CudaDevice& description);

  const CudaDevice& description() const { return description_; }
  CuDevice handle() const { return handle_; }
  /// The context that the CUDA runtime, PyTorch and CuPy use on this device.
  CuContext primary_context();
  /// Drops a primary context that the program has reset (cudaDeviceReset), with what belonged to it, so that the next
  /// call makes it anew.
  void forget_context(CuContext context);
  /// A pool of Strobe's own, so that memory stays for the next call without changing the caller's default pool.
  CuPool pool();

 private:
  const Driver& driver_;
  CudaDevice description_;
  CuDevice handle_ = 0;
  bool has_pools_ = false;
  std::mutex mutex_;
  std::atomic<CuContext> context_{nullptr};
  std::atomic<CuPool> pool_{nullptr};
};

/// @throws Error (kUnsupported) if there is no such device, saying why.
DeviceState& device_state(int index);

}  // namespace strobe::cuda
