// Finds the driver and its functions. A missing piece becomes a sentence, not a crash.
#include "cuda/host/driver.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Resolves every function; the name of the first that is not there, or null.
const char* resolve(void* library, Driver& driver) {
#define STROBE_CU_RESOLVE(member, symbol, arguments)                                  \
  driver.member = reinterpret_cast<decltype(driver.member)>(dlsym(library, #symbol)); \
  if (driver.member == nullptr) return #symbol;
  STROBE_CU_FUNCTIONS(STROBE_CU_RESOLVE)
#undef STROBE_CU_RESOLVE
#define STROBE_CU_RESOLVE(member, symbol, arguments) \
  driver.member = reinterpret_cast<decltype(driver.member)>(dlsym(library, #symbol));
  STROBE_CU_OPTIONAL_FUNCTIONS(STROBE_CU_RESOLVE)
#undef STROBE_CU_RESOLVE
  return nullptr;
}

}  // namespace

Driver load_driver(const char* library_name) {
  Driver driver;
  // Never closed: the driver does not survive that.
  void* library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    driver.missing =
        "the NVIDIA driver could not be loaded (" + std::string(why != nullptr ? why : "dlopen gave no reason") + ")";
    return driver;
  }
  const auto get_version = reinterpret_cast<CuResult (*)(int*)>(dlsym(library, "cuDriverGetVersion"));
  if (get_version != nullptr) get_version(&driver.version);
  const char* absent = resolve(library, driver);
  if (driver.version < kOldestDriver || absent != nullptr) {
    driver.missing = "the NVIDIA driver supports CUDA " + version_text(driver.version);
    if (absent != nullptr) driver.missing += " and has no " + std::string(absent);
    driver.missing += "; Strobe needs a driver for CUDA " + version_text(kOldestDriver) + " or later (525 or later)";
    return driver;
  }
  const CuResult result = driver.init(0);
  if (result != kCuSuccess) driver.missing = "the NVIDIA driver does not start (" + driver.describe(result) + ")";
  return driver;
}

const Driver& driver() {
  // Lives as long as the process: other static objects may launch while they are destroyed.
  static const Driver& loaded = *new Driver([] {
    const char* chosen = std::getenv("STROBE_CUDA_DRIVER");
    return load_driver(chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1");
  }());
  return loaded;
}

std::string Driver::describe(CuResult result) const {
  const char *name = nullptr, *text = nullptr;
  if (error_name != nullptr) error_name(result, &name);
  if (error_text != nullptr) error_text(result, &text);
  std::string description = name != nullptr ? name : "CUDA error " + std::to_string(result);
  if (text != nullptr) description += std::string(": ") + text;
  return description;
}

void fail(CuResult result, const std::string& what) {
  const bool memory = result == kCuOutOfMemory;
  throw Error(memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal, what,
              "answered by the driver with " + driver().describe(result),
              memory ? "given enough device memory" : "accepted");
}

void require(CuResult result, const char* what) {
  if (result != kCuSuccess) fail(result, what);
}

}  // namespace strobe::cuda
