// Launches, clears and stream-ordered memory, each one call of the driver once the context is right.
#include <atomic>
#include <random>

#include "cuda/host/devices.hpp"
#include "cuda/host/functions.hpp"
#include "cuda/host/stream_counts.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda {

namespace {

/// Whether the context that is current, of this number, is on the device. Numbers, unlike addresses, are not used again
/// when a context is destroyed or reset, so the last answer is kept.
bool is_on(CuDevice device, unsigned long long context_id) {
  thread_local unsigned long long last_id = 0;
  thread_local CuDevice last_device = -1;
  if (last_id != context_id) {
    if (driver().context_device(&last_device) != kCuSuccess) return false;
    last_id = context_id;
  }
  return last_device == device;
}

}  // namespace

Launcher::Launcher(Stream stream) : stream_(stream.handle) {
  DeviceState& state = device_state(stream.device);
  const Driver& cu = driver();
  device_ = &state.description();
  // The caller's context serves if it is on the device: the stream belongs to it then.
  CuContext context = nullptr;
  const bool serves = cu.context_current(&context) == kCuSuccess && context != nullptr &&
                      cu.context_id(context, &context_id_) == kCuSuccess && is_on(state.handle(), context_id_);
  if (serves) return;
  context = state.primary_context();
  // A destroyed context may be pushed, but has no number.
  if (cu.context_id(context, &context_id_) == kCuContextDestroyed) {
    state.forget_context(context);
    context = state.primary_context();
  }
  require(cu.context_push(context), "making the GPU's context current");
  pushed_ = true;
  const CuResult result = cu.context_id(context, &context_id_);
  if (result != kCuSuccess) {
    pop();
    fail(result, "looking at the GPU's context");
  }
}

Launcher::~Launcher() { pop(); }

void Launcher::pop() noexcept {
  CuContext popped = nullptr;
  if (pushed_) driver().context_pop(&popped);
  pushed_ = false;
}

void Launcher::prepare(const KernelKey& key) { loaded_function(key, context_id_, *device_); }

void Launcher::launch(const KernelKey& key, Grid grid, unsigned threads, unsigned shared_bytes, const void* params,
                      Start start) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // an empty problem; the driver would call it an error
  const CuFunction function = loaded_function(key, context_id_, *device_);
  CuLaunchAttribute starts_early{.id = kCuStartsEarly, .value = 1};
  const bool early = start == Start::kEarly && driver().version >= kEarlyStartDriver;
  const CuLaunch launch{grid.x, grid.y, grid.z, threads, 1, 1, shared_bytes, stream_, &starts_early, early ? 1u : 0u};
  void* parameters[] = {const_cast<void*>(params)};
  const CuResult result = driver().launch(&launch, function, parameters, nullptr);
  if (result != kCuSuccess) {
    fail(result, "launching " + describe(key) + " on " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
                     " x " + std::to_string(grid.z) + " blocks of " + std::to_string(threads) + " threads and " +
                     std::to_string(shared_bytes) + " bytes of shared memory");
  }
}

void Launcher::clear(void* memory, std::size_t bytes) {
  if (bytes == 0) return;
  require(driver().fill_async(reinterpret_cast<CuPointer>(memory), 0, bytes, stream_), "clearing device memory");
}

void* Launcher::counts() { return counts_of(device_state(device_->index), stream_, context_id_); }

void* Launcher::allocate(std::size_t bytes) {
  CuPointer memory = 0;
  const CuPool pool = device_state(device_->index).pool();
  const CuResult result = driver().pool_allocate(&memory, bytes, pool, stream_);
  if (result != kCuSuccess) fail(result, "taking a workspace of " + std::to_string(bytes) + " bytes");
  return reinterpret_cast<void*>(memory);
}

void Launcher::release(void* memory) noexcept {
  // Nothing to be done about a failure here: the context is broken, and the next call will say so.
  driver().free_async(reinterpret_cast<CuPointer>(memory), stream_);
}

std::uint64_t fresh_tag() {
  static const std::uint64_t seed = [] {
    std::random_device random;
    return std::uint64_t(random()) << 32 | random();
  }();
  static std::atomic<std::uint64_t> launches{0};
  constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;  // multiples of it lie far apart
  return seed + launches.fetch_add(1, std::memory_order_relaxed) * kGoldenRatio;
}

}  // namespace strobe::cuda
