// The order of the kernel store's sources, and its messages. NVRTC is replaced or asked where it is there.
#include "cuda/jit/store.hpp"

#include <gtest/gtest.h>

#include "cuda/jit/built_in.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/nvrtc.hpp"
#include "cuda/scratch_folder.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

const Nvrtc& no_compiler() {
  static const Nvrtc none = Nvrtc::load({"/nonexistent/libnvrtc.so"});
  return none;
}

class Store : public ::testing::Test {
 protected:
  Image find(const KernelKey& key, Jit jit, Source first = Source::kBuiltIn) {
    return find_image(key, device_, {.jit = jit, .cache_folder = scratch_.path(), .compiler = compiler_}, first);
  }
  std::string message(const KernelKey& key, Jit jit) {
    try {
      find(key, jit);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      return error.what();
    }
    return "no error";
  }
  void put_on_disk(const KernelKey& key, const std::string& image, const char* compiler = "12.4") {
    DiskCache(scratch_.path())
        .add(cache_label(key, device_), cache_hash(key, device_), compiler, {image.begin(), image.end()});
  }

  const CudaDevice& device_ = *known_device("h200");
  const testing::ScratchFolder scratch_;
  const Nvrtc* compiler_ = &no_compiler();
  const KernelKey unlisted_{KernelId::kSelfTest, {12345}}, listed_{KernelId::kSelfTest, {1}};
};

TEST_F(Store, OffNamesTheVariantAndHowToBuildItIn) {
  if (!built_in_kernels().empty()) GTEST_SKIP() << "kernels are built in";
  const std::string text = message(listed_, Jit::kOff);
  for (const char* part : {"cuda.selftest STROBE_STEP=1", "sm_90", "STROBE_JIT=off", "-DSTROBE_BUILTIN_KERNELS=90"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in: " << text;
  }
  EXPECT_EQ(text.find("STROBE_CUDA_VARIANT"), std::string::npos) << text;
  EXPECT_NE(message(unlisted_, Jit::kOff).find("STROBE_CUDA_VARIANT"), std::string::npos);
}

TEST_F(Store, OffIgnoresTheDiskCache) {
  put_on_disk(unlisted_, "image");
  EXPECT_NE(message(unlisted_, Jit::kOff).find("STROBE_JIT=off"), std::string::npos);
}

TEST_F(Store, CachedOnlyTakesTheDiskCacheWithoutACompiler) {
  EXPECT_NE(message(unlisted_, Jit::kCachedOnly).find("STROBE_JIT=cached-only"), std::string::npos);
  put_on_disk(unlisted_, "image");
  const Image image = find(unlisted_, Jit::kCachedOnly);
  EXPECT_EQ(image.source, Source::kDisk);
  EXPECT_EQ(std::string(image.bytes.data(), image.bytes.size()), "image");
  EXPECT_NE(image.origin.find("12.4"), std::string::npos) << image.origin;
}

TEST_F(Store, AnotherKernelOrDeviceIsAnotherEntry) {
  put_on_disk(unlisted_, "image");
  EXPECT_NE(cache_hash(unlisted_, *known_device("sm_80")), cache_hash(unlisted_, device_));
  EXPECT_NE(message({KernelId::kSelfTest, {54321}}, Jit::kCachedOnly), "no error");
  EXPECT_EQ(cache_label(unlisted_, device_), "cuda.selftest-12345-sm_90");
}

TEST_F(Store, WithoutACompilerTheMessageListsWhereItWasLookedFor) {
  const std::string text = message(unlisted_, Jit::kOn);
  EXPECT_NE(text.find("/nonexistent/libnvrtc.so"), std::string::npos) << text;
  EXPECT_NE(text.find("pip install nvidia-cuda-nvrtc"), std::string::npos) << text;
}

TEST_F(Store, WhatIsCompiledIsFoundOnDiskNextTime) {
  if (!nvrtc().usable()) GTEST_SKIP() << "NVRTC is not here";
  compiler_ = &nvrtc();
  const Image first = find(unlisted_, Jit::kOn);
  EXPECT_EQ(first.source, Source::kCompiled);
  compiler_ = &no_compiler();
  const Image second = find(unlisted_, Jit::kOn);
  EXPECT_EQ(second.source, Source::kDisk);
  EXPECT_EQ(second.bytes, first.bytes);
}

TEST_F(Store, ACorruptedEntryIsCompiledAgain) {
  if (!nvrtc().usable()) GTEST_SKIP() << "NVRTC is not here";
  put_on_disk(unlisted_, "image");
  std::filesystem::resize_file(DiskCache(scratch_.path()).list().at(0).path, 90);
  compiler_ = &nvrtc();
  EXPECT_EQ(find(unlisted_, Jit::kOn).source, Source::kCompiled);
  EXPECT_EQ(find(unlisted_, Jit::kOn).source, Source::kDisk);
}

TEST_F(Store, AFolderThatCannotBeWrittenIsNoObstacle) {
  if (!nvrtc().usable()) GTEST_SKIP() << "NVRTC is not here";
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(find_image(unlisted_, device_, {.jit = Jit::kOn, .cache_folder = "/proc/strobe"}).source,
              Source::kCompiled);
  }
}

TEST_F(Store, EverySourceThatWasTriedIsPassedOver) {
  if (!nvrtc().usable()) GTEST_SKIP() << "NVRTC is not here";
  put_on_disk(unlisted_, "for another driver");
  compiler_ = &nvrtc();
  EXPECT_EQ(find(unlisted_, Jit::kOn, Source::kCompiled).source, Source::kCompiled);
}

TEST(StoreSettings, OfTheEnvironment) {
  setenv("STROBE_CACHE_DIR", "/somewhere", 1);
  for (const auto& [value, jit] :
       {std::pair{"", Jit::kOn}, {"on", Jit::kOn}, {"cached-only", Jit::kCachedOnly}, {"off", Jit::kOff}}) {
    setenv("STROBE_JIT", value, 1);
    EXPECT_EQ(settings_from_environment().jit, jit) << value;
    EXPECT_EQ(settings_from_environment().cache_folder, "/somewhere");
  }
  setenv("STROBE_JIT", "maybe", 1);
  EXPECT_THROW(settings_from_environment(), Error);
  unsetenv("STROBE_JIT");
}

}  // namespace
}  // namespace strobe::cuda
