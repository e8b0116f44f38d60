// A CUDA driver without a GPU: a shared library with the entry points that Strobe uses. It keeps the driver's rules
// about contexts and capture, counts calls, and can be told to misbehave. Tests reach its state through fake().
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

namespace strobe::cuda::testing {

struct FakeLaunch {
  int device = 0;
  void* stream = nullptr;
  std::string image;  // what the kernel's module was loaded from
  unsigned grid[3] = {}, threads = 0, shared_bytes = 0;
  const void* params = nullptr;
  bool early = false;
};

struct FakeDriver {
  // What it pretends to be. Devices are looked at when a driver is loaded or first asked.
  int version = 13000, devices = 2;
  int init_result = 0;
  bool memory_pools = true;
  int launch_result = 0;
  // Images that begin with this are refused as made for another driver.
  std::string refused_prefix = "refuse";

  // How often it was called, by what matters.
  std::atomic<int> loads{0}, launches{0}, fills{0}, allocations{0}, frees{0}, plain_allocations{0}, pools{0};
  std::atomic<int> waits{0}, pushes{0}, pops{0}, shared_limits{0}, retained{0}, calls_in_wrong_context{0};

  bool record = false;  // whether `recorded` is filled
  std::mutex mutex;
  std::vector<FakeLaunch> recorded;

  /// A context made by the program itself, as cuCtxCreate does, not current yet.
  void* (*make_context)(int device);
  /// Pushes and pops as the program would.
  void (*push)(void* context);
  void* (*pop)();
  void* (*current)();
  /// A stream in a context, and whether it is being captured (by a thread in global mode: unsafe calls fail).
  void* (*make_stream)(void* context);
  void (*capture)(void* stream, bool begin);
  void* (*primary)(int device);
  /// As cudaDeviceReset: the primary context is destroyed, and retaining makes another.
  void (*reset)(int device);
};

}  // namespace strobe::cuda::testing

extern "C" strobe::cuda::testing::FakeDriver* strobe_fake_driver();
