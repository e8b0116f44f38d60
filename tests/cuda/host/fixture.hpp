// Tests of the CUDA engine over the fake driver: the driver's state, a cache folder of the test's own with kernels that
// need no compiler, and what changed since the test began.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "cuda/cuda.hpp"
#include "cuda/fake_driver/fake_driver.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/store.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda::testing {

inline FakeDriver& fake() {
  static FakeDriver& driver = *[] {
    void* library = dlopen(STROBE_FAKE_DRIVER, RTLD_NOW);
    return reinterpret_cast<FakeDriver* (*)()>(dlsym(library, "strobe_fake_driver"))();
  }();
  return driver;
}

class Engine : public ::testing::Test {
 protected:
  Engine() {
    setenv("STROBE_CUDA_DRIVER", STROBE_FAKE_DRIVER, 1);
    setenv("STROBE_CACHE_DIR", folder_.c_str(), 1);
    setenv("STROBE_NVRTC", "/nonexistent/libnvrtc.so", 1);
    fake().record = false;
    fake().recorded.clear();
    fake().launch_result = 0;
  }
  ~Engine() override {
    while (fake().current() != nullptr) fake().pop();
    std::filesystem::remove_all(folder_);
  }

  /// Puts an image of the kernel into the disk cache.
  void add_to_cache(const KernelKey& key) {
    for (int index = 0; index < device_count(); ++index) {
      DiskCache(folder_).add(cache_label(key, device(index)), cache_hash(key, device(index)), "13.0", {'k', '\0'});
    }
  }

  /// A kernel that no other test has loaded, in the disk cache as "image <number>".
  KernelKey new_kernel(const std::string& image_prefix = "image ") {
    static int number = 1000;
    const KernelKey key{KernelId::kSelfTest, {++number}};
    std::string image = image_prefix + std::to_string(number);
    image.push_back('\0');
    for (int index = 0; index < device_count(); ++index) {
      DiskCache(folder_).add(cache_label(key, device(index)), cache_hash(key, device(index)), "13.0",
                             std::vector<char>(image.begin(), image.end()));
    }
    return key;
  }

  const std::string folder_ = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "strobe_engine_XXXXXX").string();
    return std::string(mkdtemp(pattern.data()));
  }();
};

}  // namespace strobe::cuda::testing
