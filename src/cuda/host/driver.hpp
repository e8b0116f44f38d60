// The CUDA driver, loaded at run time: the functions of libcuda.so.1 that Strobe calls, declared here so that building
// needs no CUDA headers. The rest of src/cuda/host calls the driver through this table only.
#pragma once

#include <cstddef>
#include <string>

namespace strobe::cuda {

// Handles and structs of cuda.h, under names of our own. Layouts are the driver's ABI since CUDA 12.0 and earlier.
using CuResult = int;
using CuDevice = int;
using CuContext = struct CuContextHandle*;
using CuModule = struct CuModuleHandle*;
using CuFunction = struct CuFunctionHandle*;
using CuStream = void*;
using CuPool = struct CuPoolHandle*;
using CuEvent = struct CuEventHandle*;
using CuPointer = unsigned long long;

enum : CuResult {
  kCuSuccess = 0,
  kCuInvalidValue = 1,
  kCuOutOfMemory = 2,
  kCuNoDevice = 100,
  kCuInvalidImage = 200,
  kCuNoBinaryForGpu = 209,
  kCuUnsupportedPtx = 222,
  kCuContextDestroyed = 709,
};

enum CuDeviceAttribute : int {
  kCuMultiprocessors = 16,
  kCuL2Bytes = 38,
  kCuCapabilityMajor = 75,
  kCuCapabilityMinor = 76,
  kCuSharedPerMultiprocessor = 81,
  kCuSharedPerBlockOptIn = 97,
  kCuMemoryPools = 115,
};

enum CuFunctionAttribute : int {
  kCuStaticShared = 1,
  kCuLocalBytes = 3,
  kCuRegisters = 4,
  kCuMaxDynamicShared = 8,
};

/// CUlaunchAttribute: what has an int for a value.
struct CuLaunchAttribute {
  int id;
  char padding[4] = {};
  int value;
  char rest[60] = {};
};
static_assert(sizeof(CuLaunchAttribute) == 72);
/// A kernel may start before those launched before it have ended (programmatic stream serialisation).
inline constexpr int kCuStartsEarly = 6;

/// CUlaunchConfig.
struct CuLaunch {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  CuStream stream;
  CuLaunchAttribute* attributes;
  unsigned attribute_count;
};

/// CUmemPoolProps: pinned device memory that no other process sees.
struct CuPoolProperties {
  int allocation = 1, handles = 0, location_kind = 1, location_device = 0;
  void* security = nullptr;
  std::size_t max_bytes = 0;
  unsigned short usage = 0;
  unsigned char reserved[54] = {};
};
inline constexpr int kCuPoolReleaseThreshold = 4;
inline constexpr int kCuCaptureRelaxed = 2;

/// X(result, member, symbol, arguments): what must be there. All of it has been since driver 525 (CUDA 12.0).
#define STROBE_CU_FUNCTIONS(X)                                                                                     \
  X(init, cuInit, (unsigned flags))                                                                                \
  X(driver_version, cuDriverGetVersion, (int* version))                                                            \
  X(error_name, cuGetErrorName, (CuResult result, const char** name))                                              \
  X(error_text, cuGetErrorString, (CuResult result, const char** text))                                            \
  X(device_count, cuDeviceGetCount, (int* count))                                                                  \
  X(device_get, cuDeviceGet, (CuDevice * device, int index))                                                       \
  X(device_name, cuDeviceGetName, (char* name, int length, CuDevice device))                                       \
  X(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, CuDevice device))                          \
  X(device_memory, cuDeviceTotalMem_v2, (std::size_t * bytes, CuDevice device))                                    \
  X(primary_retain, cuDevicePrimaryCtxRetain, (CuContext * context, CuDevice device))                              \
  X(context_current, cuCtxGetCurrent, (CuContext * context))                                                       \
  X(context_device, cuCtxGetDevice, (CuDevice * device))                                                           \
  X(context_id, cuCtxGetId, (CuContext context, unsigned long long* id))                                           \
  X(context_push, cuCtxPushCurrent_v2, (CuContext context))                                                        \
  X(context_pop, cuCtxPopCurrent_v2, (CuContext * context))                                                        \
  X(capture_mode, cuThreadExchangeStreamCaptureMode, (int* mode))                                                  \
  X(module_load, cuModuleLoadData, (CuModule * module, const void* image))                                         \
  X(module_unload, cuModuleUnload, (CuModule module))                                                              \
  X(module_function, cuModuleGetFunction, (CuFunction * function, CuModule module, const char* name))              \
  X(function_attribute, cuFuncGetAttribute, (int* value, int attribute, CuFunction function))                      \
  X(set_function_attribute, cuFuncSetAttribute, (CuFunction function, int attribute, int value))                   \
  X(launch, cuLaunchKernelEx, (const CuLaunch* launch, CuFunction function, void** parameters, void** extra))      \
  X(fill_async, cuMemsetD8Async, (CuPointer memory, unsigned char value, std::size_t bytes, CuStream stream))      \
  X(pool_create, cuMemPoolCreate, (CuPool * pool, const CuPoolProperties* properties))                             \
  X(pool_set_attribute, cuMemPoolSetAttribute, (CuPool pool, int attribute, void* value))                          \
  X(pool_allocate, cuMemAllocFromPoolAsync, (CuPointer * memory, std::size_t bytes, CuPool pool, CuStream stream)) \
  X(free_async, cuMemFreeAsync, (CuPointer memory, CuStream stream))                                               \
  X(allocate, cuMemAlloc_v2, (CuPointer * memory, std::size_t bytes))                                              \
  X(free, cuMemFree_v2, (CuPointer memory))                                                                        \
  X(copy_to_device, cuMemcpyHtoDAsync_v2, (CuPointer to, const void* from, std::size_t bytes, CuStream stream))    \
  X(copy_to_host, cuMemcpyDtoHAsync_v2, (void* to, CuPointer from, std::size_t bytes, CuStream stream))            \
  X(stream_create, cuStreamCreate, (CuStream * stream, unsigned flags))                                            \
  X(stream_destroy, cuStreamDestroy_v2, (CuStream stream))                                                         \
  X(stream_synchronise, cuStreamSynchronize, (CuStream stream))                                                    \
  X(event_create, cuEventCreate, (CuEvent * event, unsigned flags))                                                \
  X(event_record, cuEventRecord, (CuEvent event, CuStream stream))                                                 \
  X(event_synchronise, cuEventSynchronize, (CuEvent event))                                                        \
  X(event_elapsed, cuEventElapsedTime, (float* milliseconds, CuEvent begin, CuEvent end))                          \
  X(event_destroy, cuEventDestroy_v2, (CuEvent event))

/// What only kernels for some architectures need, or what only saves time; null where the driver has none of it.
#define STROBE_CU_OPTIONAL_FUNCTIONS(X)                                                                          \
  X(stream_capturing, cuStreamIsCapturing, (CuStream stream, int* status))                                       \
  X(stream_id, cuStreamGetId, (CuStream stream, unsigned long long* id))                                         \
  X(encode_tensor_map, cuTensorMapEncodeTiled,                                                                   \
    (void* map, int type, unsigned rank, void* data, const unsigned long long* extents,                          \
     const unsigned long long* strides, const unsigned* box, const unsigned* steps, int interleave, int swizzle, \
     int promotion, int fill))

/// The loaded driver, or why there is none. All functions are there but for the optional ones, or none is.
struct Driver {
#define STROBE_CU_MEMBER(member, symbol, arguments) CuResult(*member) arguments = nullptr;
  STROBE_CU_FUNCTIONS(STROBE_CU_MEMBER)
  STROBE_CU_OPTIONAL_FUNCTIONS(STROBE_CU_MEMBER)
#undef STROBE_CU_MEMBER

  int version = 0;      // of CUDA that the driver supports: 13000 is 13.0
  std::string missing;  // "" when usable, otherwise a clause: "libcuda.so.1 could not be loaded: ..."

  bool usable() const { return missing.empty(); }
  /// "CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid"
  std::string describe(CuResult result) const;
};

/// The oldest driver that serves, as Driver::version counts: what CUDA 12.0 came with.
inline constexpr int kOldestDriver = 12000;

/// The oldest driver that captures kernels which start early into graphs.
inline constexpr int kEarlyStartDriver = 12030;

/// Loads a driver from a library of this name or path, and initialises it. Never throws.
Driver load_driver(const char* library);

/// The driver of this process, loaded on first use; STROBE_CUDA_DRIVER names another library than libcuda.so.1.
const Driver& driver();

/// Throws when a call of the driver failed. `what` says what was tried: "launching cuda.sm80.forward ...".
/// @throws Error: kOutOfMemory, otherwise kInternal.
void require(CuResult result, const char* what);
[[noreturn]] void fail(CuResult result, const std::string& what);

}  // namespace strobe::cuda
