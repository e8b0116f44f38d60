// Compiling with NVRTC. Without a GPU all of it works; without NVRTC the tests that need it are skipped.
#include "cuda/jit/nvrtc.hpp"

#include <gtest/gtest.h>

#include "cuda/jit/store.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

TEST(Nvrtc, MissingSaysWhereItWasLookedFor) {
  const Nvrtc none = Nvrtc::load({"/nonexistent/libnvrtc.so.13", "/etc/hostname"});
  EXPECT_FALSE(none.usable());
  EXPECT_NE(none.missing().find("/nonexistent/libnvrtc.so.13"), std::string::npos) << none.missing();
  EXPECT_NE(none.missing().find("/etc/hostname"), std::string::npos) << none.missing();
  EXPECT_NE(none.missing().find("STROBE_NVRTC"), std::string::npos);
  EXPECT_NE(none.missing().find("pip install nvidia-cuda-nvrtc"), std::string::npos);
}

TEST(Nvrtc, IsNotTakenFromALibraryThatIsSomethingElse) {
  const Nvrtc none = Nvrtc::load({"libm.so.6"});
  EXPECT_NE(none.missing().find("libm.so.6: has no nvrtcVersion"), std::string::npos) << none.missing();
}

class NvrtcHere : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!nvrtc().usable()) GTEST_SKIP() << "NVRTC is not here";
  }
};

TEST_F(NvrtcHere, CompilesForEveryArchitecture) {
  for (const CudaDevice& device : known_devices()) {
    const Image image = find_image({KernelId::kSelfTest, {3}}, device, {}, Source::kCompiled);
    ASSERT_GT(image.bytes.size(), 100u);
    EXPECT_EQ(std::string(image.bytes.data(), 4), "\177ELF");
  }
}

TEST_F(NvrtcHere, ReportsItsLogWhenAKernelDoesNotCompile) {
  try {
    find_image({KernelId::kSelfTest, {0}}, *known_device("h200"), {}, Source::kCompiled);
    FAIL() << "it compiled";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("cuda.selftest STROBE_STEP=0"), std::string::npos) << text;
    EXPECT_NE(text.find("STROBE_STEP must not be 0"), std::string::npos) << text;
    EXPECT_NE(text.find("cuda/selftest/entry.cu"), std::string::npos) << text;
  }
}

TEST_F(NvrtcHere, IsPassedOverIfItIsTooNewForTheDriver) {
  const int major = nvrtc().version() / 1000;
  EXPECT_TRUE(Nvrtc::load({nvrtc().path()}, major).usable());
  const Nvrtc too_new = Nvrtc::load({nvrtc().path()}, major - 1);
  EXPECT_FALSE(too_new.usable());
  EXPECT_NE(too_new.missing().find("for this driver, not above"), std::string::npos) << too_new.missing();
}

TEST_F(NvrtcHere, TakesTheNearestTargetForADeviceThatIsNewerThanItself) {
  EXPECT_EQ(nvrtc().target_for(90, ""), "sm_90");
  EXPECT_EQ(nvrtc().target_for(90, "a"), "sm_90a");
  EXPECT_EQ(nvrtc().target_for(129, ""), "sm_121");
  EXPECT_EQ(nvrtc().target_for(999, "").substr(0, 8), "compute_");
}

}  // namespace
}  // namespace strobe::cuda
