// The entry points. Results are numbers of cuda.h: 1 invalid value, 201 invalid context, 400 invalid handle, 900 not
// allowed while a stream is captured.
#include "cuda/fake_driver/fake_driver.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/host/driver.hpp"
#include "cuda/simulator/load.hpp"
#include "cuda/simulator/tensor_map.hpp"

// The driver's names lie outside namespaces, so its types do here.
using namespace strobe::cuda;  // NOLINT
using strobe::cuda::testing::FakeDriver;
using strobe::cuda::testing::FakeLaunch;

namespace {

unsigned number_from_environment(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? unsigned(std::atoi(text)) : otherwise;
}

/// The architecture that is simulated, and the shared memory that a block may have there, in KiB.
int architecture() { return int(number_from_environment("STROBE_SIMULATED_ARCHITECTURE", 90)); }
int shared_kib() { return architecture() >= 90 && architecture() < 120 ? 227 : architecture() == 80 ? 163 : 99; }

constexpr int kStaticShared = 1024;
constexpr CuResult kInvalidContext = 201, kInvalidHandle = 400, kLaunchFailed = 719, kCaptureUnsupported = 900;

struct FakeContext {
  int device;
  unsigned long long id;
};
struct FakeStream {
  explicit FakeStream(FakeContext* context);
  FakeContext* context;
  unsigned long long id;
  std::atomic<bool> captured{false};
};
struct FakeModule {
  FakeContext* context;
  std::string image;
  strobe::simulator::Kernel kernel;  // of the simulated GPU, if it has one
};

FakeDriver state;
std::atomic<unsigned long long> next_context_id{1}, next_stream_id{1000};
std::atomic<int> captures{0};
std::atomic<FakeContext*> primaries[16];
thread_local std::vector<FakeContext*> stack;
thread_local int capture_mode = 0;  // 0 global, 2 relaxed

FakeStream::FakeStream(FakeContext* context) : context(context), id(next_stream_id++) {}

/// What nobody gives back, as with a real driver, which keeps it until the process ends.
template <typename Object>
Object* kept(Object* object) {
  static std::mutex mutex;
  static auto& objects = *new std::vector<std::shared_ptr<void>>;
  const std::lock_guard lock(mutex);
  objects.emplace_back(std::shared_ptr<Object>(object));
  return object;
}

FakeContext* make_context(int device) { return kept(new FakeContext{device, next_context_id++}); }
FakeContext* current() { return stack.empty() ? nullptr : stack.back(); }

/// Of an image that is no kernel. The simulated GPU has static shared memory elsewhere.
int static_shared(CuFunction function) {
  return reinterpret_cast<const FakeModule*>(function)->kernel.run == nullptr ? kStaticShared : 0;
}

/// What a call that is not allowed during capture answers.
bool capture_forbids() { return captures > 0 && capture_mode != 2; }

/// A stream may be used in its own context only; the default stream belongs to whichever is current.
CuResult check_stream(CuStream stream) {
  if (current() == nullptr) return kInvalidContext;
  if (stream == nullptr || static_cast<FakeStream*>(stream)->context == current()) return kCuSuccess;
  ++state.calls_in_wrong_context;
  return kInvalidHandle;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT FakeDriver* strobe_fake_driver() {
  state.make_context = [](int device) -> void* { return make_context(device); };
  state.push = [](void* context) { stack.push_back(static_cast<FakeContext*>(context)); };
  state.pop = []() -> void* {
    FakeContext* top = current();
    if (top != nullptr) stack.pop_back();
    return top;
  };
  state.current = []() -> void* { return current(); };
  state.make_stream = [](void* context) -> void* {
    static std::vector<std::unique_ptr<FakeStream>> streams;
    streams.push_back(std::make_unique<FakeStream>(static_cast<FakeContext*>(context)));
    return streams.back().get();
  };
  state.capture = [](void* stream, bool begin) {
    static_cast<FakeStream*>(stream)->captured = begin;
    captures += begin ? 1 : -1;
  };
  state.reset = [](int device) { primaries[device].exchange(nullptr)->id = 0; };
  state.primary = [](int device) -> void* { return primaries[device].load(); };
  return &state;
}

EXPORT CuResult cuInit(unsigned) { return state.init_result; }
EXPORT CuResult cuDriverGetVersion(int* version) {
  *version = state.version;
  return kCuSuccess;
}
EXPORT CuResult cuGetErrorName(CuResult result, const char** name) {
  *name = result == kCuNoDevice ? "CUDA_ERROR_NO_DEVICE" : result == kCuSuccess ? "CUDA_SUCCESS" : "CUDA_ERROR_FAKE";
  return kCuSuccess;
}
EXPORT CuResult cuGetErrorString(CuResult result, const char** text) {
  *text = result == kCuSuccess ? "no error" : "the fake driver was told to fail";
  return kCuSuccess;
}
EXPORT CuResult cuDeviceGetCount(int* count) {
  *count = state.devices;
  return kCuSuccess;
}
EXPORT CuResult cuDeviceGet(CuDevice* device, int index) {
  if (index < 0 || index >= state.devices) return kCuInvalidValue;
  *device = index;
  return kCuSuccess;
}
EXPORT CuResult cuDeviceGetName(char* name, int length, CuDevice) {
  std::strncpy(name, "Fake H200", std::size_t(length));
  return kCuSuccess;
}
EXPORT CuResult cuDeviceGetAttribute(int* value, int attribute, CuDevice) {
  switch (attribute) {
    case kCuMultiprocessors:
      *value = int(number_from_environment("STROBE_SIMULATED_MULTIPROCESSORS", 132));
      break;
    case kCuL2Bytes:
      *value = 50 << 20;
      break;
    case kCuCapabilityMajor:
      *value = architecture() / 10;
      break;
    case kCuCapabilityMinor:
      *value = architecture() % 10;
      break;
    case kCuSharedPerMultiprocessor:
      *value = (shared_kib() + 1) << 10;
      break;
    case kCuSharedPerBlockOptIn:
      *value = shared_kib() << 10;
      break;
    case kCuMemoryPools:
      *value = state.memory_pools ? 1 : 0;
      break;
    default:
      return kCuInvalidValue;
  }
  return kCuSuccess;
}
EXPORT CuResult cuDeviceTotalMem_v2(std::size_t* bytes, CuDevice) {
  *bytes = std::size_t(141) << 30;
  return kCuSuccess;
}
EXPORT CuResult cuDevicePrimaryCtxRetain(CuContext* context, CuDevice device) {
  ++state.retained;
  if (primaries[device].load() == nullptr) primaries[device] = make_context(device);
  *context = reinterpret_cast<CuContext>(primaries[device].load());
  return kCuSuccess;
}
EXPORT CuResult cuCtxGetCurrent(CuContext* context) {
  *context = reinterpret_cast<CuContext>(current());
  return kCuSuccess;
}
EXPORT CuResult cuCtxGetDevice(CuDevice* device) {
  if (current() == nullptr) return kInvalidContext;
  *device = current()->device;
  return kCuSuccess;
}
EXPORT CuResult cuCtxGetId(CuContext context, unsigned long long* id) {
  *id = reinterpret_cast<FakeContext*>(context)->id;
  return *id == 0 ? kCuContextDestroyed : kCuSuccess;
}
EXPORT CuResult cuCtxPushCurrent_v2(CuContext context) {
  ++state.pushes;
  stack.push_back(reinterpret_cast<FakeContext*>(context));
  return kCuSuccess;
}
EXPORT CuResult cuCtxPopCurrent_v2(CuContext* context) {
  ++state.pops;
  if (current() == nullptr) return kInvalidContext;
  *context = reinterpret_cast<CuContext>(current());
  stack.pop_back();
  return kCuSuccess;
}
EXPORT CuResult cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, capture_mode);
  return kCuSuccess;
}
EXPORT CuResult cuModuleLoadData(CuModule* module, const void* image) {
  ++state.loads;
  if (current() == nullptr) return kInvalidContext;
  if (capture_forbids()) return kCaptureUnsupported;
  const std::string text(static_cast<const char*>(image), strnlen(static_cast<const char*>(image), 64));
  if (text.starts_with(state.refused_prefix)) return kCuNoBinaryForGpu;
  *module = reinterpret_cast<CuModule>(new FakeModule{current(), text, strobe::simulator::load(image)});
  return kCuSuccess;
}
EXPORT CuResult cuModuleUnload(CuModule) { return kCuSuccess; }
EXPORT CuResult cuModuleGetFunction(CuFunction* function, CuModule module, const char*) {
  *function = reinterpret_cast<CuFunction>(module);
  return kCuSuccess;
}
EXPORT CuResult cuFuncGetAttribute(int* value, int attribute, CuFunction function) {
  *value = attribute == kCuStaticShared ? static_shared(function) : 0;
  return kCuSuccess;
}
EXPORT CuResult cuFuncSetAttribute(CuFunction function, int attribute, int value) {
  if (attribute != kCuMaxDynamicShared || value > (shared_kib() << 10) - static_shared(function))
    return kCuInvalidValue;
  ++state.shared_limits;
  return kCuSuccess;
}
EXPORT CuResult cuLaunchKernelEx(const CuLaunch* launch, CuFunction function, void** parameters, void** extra) {
  const auto* module = reinterpret_cast<const FakeModule*>(function);
  if (module->context != current()) {
    ++state.calls_in_wrong_context;
    return kInvalidHandle;
  }
  const bool early = launch->attribute_count == 1;
  if (launch->grid_x == 0 || launch->attribute_count > 1 || extra != nullptr) return kCuInvalidValue;
  if (early && (launch->attributes->id != kCuStartsEarly || launch->attributes->value != 1)) return kCuInvalidValue;
  if (const CuResult result = check_stream(launch->stream); result != kCuSuccess) return result;
  ++state.launches;
  if (state.record) {
    const std::lock_guard lock(state.mutex);
    state.recorded.push_back({module->context->device,
                              launch->stream,
                              module->image,
                              {launch->grid_x, launch->grid_y, launch->grid_z},
                              launch->block_x,
                              launch->shared_bytes,
                              parameters[0],
                              early});
  }
  if (state.launch_result == kCuSuccess && module->kernel.run != nullptr) {
    const strobe::simulator::Index grid{launch->grid_x, launch->grid_y, launch->grid_z};
    const bool done =
        strobe::simulator::run(module->kernel.run, parameters[0], grid, launch->block_x, launch->shared_bytes,
                               {.seed = number_from_environment("STROBE_SIMULATOR_SEED", 1),
                                .blocks = number_from_environment("STROBE_SIMULATED_BLOCKS", 1),
                                .early = early,
                                .cluster = module->kernel.cluster});
    return done ? kCuSuccess : kLaunchFailed;
  }
  return state.launch_result;
}
/// Four dimensions of 16-bit elements under the 128-byte swizzle, with the rules of CUDA's documentation.
EXPORT CuResult cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* data, const unsigned long long* sizes,
                                       const unsigned long long* strides, const unsigned* box, const unsigned* steps,
                                       int interleave, int swizzle, int promotion, int fill) {
  constexpr int kFloat16 = 6, kBFloat16 = 9, kSwizzle128 = 3, kElementBytes = 2, kSpan = 128;
  constexpr unsigned long long kUnit = 16, kMostSize = 1ull << 32, kMostStride = 1ull << 40;
  const auto address = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
  strobe::simulator::TensorDescription tensor;
  tensor.data = static_cast<char*>(data);
  tensor.element_bytes = kElementBytes;
  if (rank != std::size(tensor.sizes) || (type != kFloat16 && type != kBFloat16)) return kCuInvalidValue;
  if (interleave != 0 || swizzle != kSwizzle128 || promotion < 0 || promotion > 3 || fill != 0) return kCuInvalidValue;
  if (address(map) % 64 != 0 || address(data) % kUnit != 0) return kCuInvalidValue;
  for (unsigned n = 0; n < rank; ++n) {
    if (sizes[n] < 1 || sizes[n] > kMostSize || box[n] < 1 || box[n] > 256 || steps[n] != 1) return kCuInvalidValue;
    tensor.sizes[n] = sizes[n];
    tensor.box[n] = std::uint16_t(box[n]);
  }
  if (box[0] * kElementBytes > kSpan || box[0] * kElementBytes % kUnit != 0) return kCuInvalidValue;
  for (unsigned n = 0; n + 1 < rank; ++n) {
    if (strides[n] % kUnit != 0 || strides[n] >= kMostStride) return kCuInvalidValue;
    tensor.strides[n] = strides[n];
  }
  std::memcpy(map, &tensor, sizeof tensor);
  return kCuSuccess;
}
EXPORT CuResult cuMemsetD8Async(CuPointer memory, unsigned char value, std::size_t bytes, CuStream stream) {
  if (const CuResult result = check_stream(stream); result != kCuSuccess) return result;
  ++state.fills;
  std::memset(reinterpret_cast<void*>(memory), value, bytes);
  return kCuSuccess;
}
EXPORT CuResult cuMemPoolCreate(CuPool* pool, const CuPoolProperties* properties) {
  if (!state.memory_pools || properties->allocation != 1 || properties->location_kind != 1) return kCuInvalidValue;
  if (capture_forbids()) return kCaptureUnsupported;
  ++state.pools;
  *pool = reinterpret_cast<CuPool>(kept(new int(properties->location_device)));
  return kCuSuccess;
}
EXPORT CuResult cuMemPoolSetAttribute(CuPool, int attribute, void*) {
  return attribute == kCuPoolReleaseThreshold ? kCuSuccess : kCuInvalidValue;
}
EXPORT CuResult cuMemAllocFromPoolAsync(CuPointer* memory, std::size_t bytes, CuPool pool, CuStream stream) {
  if (const CuResult result = check_stream(stream); result != kCuSuccess) return result;
  if (*reinterpret_cast<int*>(pool) != current()->device) return kCuInvalidValue;
  if (bytes > (std::size_t(1) << 40)) return kCuOutOfMemory;
  ++state.allocations;
  *memory = reinterpret_cast<CuPointer>(strobe::simulator::allocate_guarded(bytes));
  return kCuSuccess;
}
EXPORT CuResult cuMemFreeAsync(CuPointer memory, CuStream stream) {
  if (const CuResult result = check_stream(stream); result != kCuSuccess) return result;
  ++state.frees;
  strobe::simulator::free_guarded(reinterpret_cast<void*>(memory));
  return kCuSuccess;
}
EXPORT CuResult cuMemAlloc_v2(CuPointer* memory, std::size_t bytes) {
  if (current() == nullptr) return kInvalidContext;
  if (capture_forbids()) return kCaptureUnsupported;
  ++state.plain_allocations;
  *memory = reinterpret_cast<CuPointer>(strobe::simulator::allocate_guarded(bytes));
  return kCuSuccess;
}
EXPORT CuResult cuMemFree_v2(CuPointer memory) {
  strobe::simulator::free_guarded(reinterpret_cast<void*>(memory));
  return kCuSuccess;
}
EXPORT CuResult cuMemcpyHtoDAsync_v2(CuPointer to, const void* from, std::size_t bytes, CuStream stream) {
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return check_stream(stream);
}
EXPORT CuResult cuMemcpyDtoHAsync_v2(void* to, CuPointer from, std::size_t bytes, CuStream stream) {
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return check_stream(stream);
}
EXPORT CuResult cuStreamCreate(CuStream* stream, unsigned) {
  if (current() == nullptr) return kInvalidContext;
  *stream = new FakeStream{current()};
  return kCuSuccess;
}
EXPORT CuResult cuStreamIsCapturing(CuStream stream, int* status) {
  *status = stream != nullptr && static_cast<FakeStream*>(stream)->captured ? 1 : 0;
  return check_stream(stream);
}
EXPORT CuResult cuStreamGetId(CuStream stream, unsigned long long* id) {
  *id = stream != nullptr ? static_cast<FakeStream*>(stream)->id : 1;
  return check_stream(stream);
}
EXPORT CuResult cuStreamDestroy_v2(CuStream stream) {
  delete static_cast<FakeStream*>(stream);
  return kCuSuccess;
}
EXPORT CuResult cuStreamSynchronize(CuStream stream) {
  ++state.waits;
  if (stream != nullptr && static_cast<FakeStream*>(stream)->captured) return kCaptureUnsupported;
  return check_stream(stream);
}
EXPORT CuResult cuEventCreate(CuEvent* event, unsigned) {
  *event = reinterpret_cast<CuEvent>(new int(0));
  return kCuSuccess;
}
EXPORT CuResult cuEventRecord(CuEvent, CuStream stream) { return check_stream(stream); }
EXPORT CuResult cuEventSynchronize(CuEvent) {
  ++state.waits;
  return kCuSuccess;
}
EXPORT CuResult cuEventElapsedTime(float* milliseconds, CuEvent, CuEvent) {
  *milliseconds = 1.0f;
  return kCuSuccess;
}
EXPORT CuResult cuEventDestroy_v2(CuEvent event) {
  delete reinterpret_cast<int*>(event);
  return kCuSuccess;
}
