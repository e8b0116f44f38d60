// What is said when the driver, a part of it, or a GPU is missing.
#include "cuda/host/driver.hpp"

#include "cuda/host/devices.hpp"
#include "cuda/host/fixture.hpp"

namespace strobe::cuda {
namespace {

using testing::fake;

/// Sets a member of the fake driver for one test.
template <typename T>
class Pretend {
 public:
  Pretend(T& member, T value) : member_(member), before_(member) { member_ = value; }
  ~Pretend() { member_ = before_; }

 private:
  T& member_;
  T before_;
};

TEST(Driver, MissingLibraryIsNamed) {
  const Driver none = load_driver("libcuda_of_nobody.so.1");
  EXPECT_FALSE(none.usable());
  EXPECT_NE(none.missing.find("libcuda_of_nobody.so.1"), std::string::npos) << none.missing;
  std::string why;
  EXPECT_TRUE(describe_devices(none, why).empty());
  EXPECT_EQ(why, none.missing);
}

TEST(Driver, OldOneIsRefusedWithBothVersions) {
  const Pretend old(fake().version, 11040);
  const Driver driver = load_driver(STROBE_FAKE_DRIVER);
  EXPECT_FALSE(driver.usable());
  EXPECT_NE(driver.missing.find("supports CUDA 11.4"), std::string::npos) << driver.missing;
  EXPECT_NE(driver.missing.find("CUDA 12.0"), std::string::npos) << driver.missing;
}

TEST(Driver, MissingFunctionIsNamed) {
  const Driver driver = load_driver("libm.so.6");
  EXPECT_NE(driver.missing.find("has no cuInit"), std::string::npos) << driver.missing;
}

TEST(Driver, ThatDoesNotStartSaysWhy) {
  const Pretend broken(fake().init_result, int(kCuNoDevice));
  const Driver driver = load_driver(STROBE_FAKE_DRIVER);
  EXPECT_NE(driver.missing.find("CUDA_ERROR_NO_DEVICE"), std::string::npos) << driver.missing;
}

TEST(Driver, BothMajorVersionsServe) {
  for (const int version : {12000, 12080, 13000, 13020}) {
    const Pretend some(fake().version, version);
    EXPECT_TRUE(load_driver(STROBE_FAKE_DRIVER).usable()) << version;
  }
}

TEST(Driver, WithoutDevicesSaysSo) {
  const Pretend none(fake().devices, 0);
  std::string why;
  EXPECT_TRUE(describe_devices(load_driver(STROBE_FAKE_DRIVER), why).empty());
  EXPECT_NE(why.find("sees no GPU"), std::string::npos) << why;
}

TEST(Driver, DescribesItsDevices) {
  std::string why;
  const auto devices = describe_devices(load_driver(STROBE_FAKE_DRIVER), why);
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_EQ(devices[1].index, 1);
  EXPECT_EQ(devices[1].architecture, 90);
  EXPECT_EQ(devices[1].multiprocessors, 132);
  EXPECT_EQ(devices[1].shared_bytes_per_block, 227 << 10);
  EXPECT_EQ(devices[1].memory_bytes, std::int64_t(141) << 30);
  EXPECT_STREQ(devices[1].name, "Fake H200");
}

/// In a process of its own: the driver is looked for once.
void ask_for_a_device_without_driver() {
  setenv("STROBE_CUDA_DRIVER", "/nonexistent/libcuda.so.1", 1);
  if (device_count() != 0 || why_no_device().empty()) std::exit(1);
  try {
    device(0);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(error.code() == ErrorCode::kUnsupported ? 3 : 1);
  }
}

TEST(NoDriverDeathTest, AskingForADeviceNamesWhatIsMissing) {
  EXPECT_EXIT(ask_for_a_device_without_driver(), ::testing::ExitedWithCode(3),
              "execution.device is cuda:0, but the NVIDIA driver could not be loaded .*/nonexistent/libcuda.so.1");
}

using DeviceNumber = testing::Engine;

TEST_F(DeviceNumber, BeyondTheLastIsRefusedWithTheOnesThatAreThere) {
  EXPECT_EQ(device_count(), 2);
  for (const int index : {2, -1}) {
    try {
      device(index);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("cuda:0 to cuda:1"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace strobe::cuda
