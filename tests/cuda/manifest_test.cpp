// The manifest's CUDA rows: complete, consistent, and within what each architecture has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "cuda/jit/recipe.hpp"

namespace strobe::cuda {
namespace {

int option_count(const KernelRow& row) { return 1 + int(std::count(row.options, std::strchr(row.options, 0), ' ')); }

TEST(CudaManifest, RowsAreInTheOrderOfTheirIds) {
  ASSERT_EQ(int(kernel_rows().size()), kKernelCount);
  std::set<std::string> names;
  for (int id = 0; id < kKernelCount; ++id) {
    const KernelRow& row = row_of(KernelId(id));
    EXPECT_EQ(int(row.id), id);
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_LE(option_count(row), kMaxOptions) << row.name;
    EXPECT_GE(row.lowest_architecture, 80) << row.name;
    EXPECT_GT(std::strlen(row.summary), 10u) << row.name;
  }
}

TEST(CudaManifest, EveryRowHasTextAndVariants) {
  for (const KernelRow& row : kernel_rows()) {
    const KernelKey key{.id = row.id};
    const Recipe recipe = recipe_for(key, 90);
    EXPECT_EQ(recipe.texts.front().path, row.entry);
    EXPECT_NE(recipe.texts.front().text.find("extern \"C\" __global__"), std::string_view::npos) << row.name;
    const auto belongs = [&](const KernelVariant& variant) { return variant.key.id == row.id; };
    EXPECT_TRUE(std::any_of(kernel_variants().begin(), kernel_variants().end(), belongs)) << row.name;
  }
}

TEST(CudaManifest, BudgetsFitTheArchitectures) {
  for (const KernelVariant& variant : kernel_variants()) {
    EXPECT_LE(variant.threads * variant.registers, 65536) << describe(variant.key);
    EXPECT_LE(variant.registers, 255) << describe(variant.key);
    EXPECT_EQ(variant.threads % 32, 0) << describe(variant.key);
    bool used = false;
    for (const int architecture : kArchitectures) {
      if (!includes(variant, architecture)) continue;
      used = true;
      const CudaDevice* device = known_device("sm_" + std::to_string(architecture));
      ASSERT_NE(device, nullptr) << architecture;
      EXPECT_LE(variant.shared_bytes, device->shared_bytes_per_block)
          << describe(variant.key) << " on " << architecture;
    }
    EXPECT_TRUE(used) << describe(variant.key);
  }
}

TEST(CudaManifest, VariantsAreListedOnceForAnArchitecture) {
  for (std::size_t a = 0; a < kernel_variants().size(); ++a) {
    for (std::size_t b = a + 1; b < kernel_variants().size(); ++b) {
      const KernelVariant &one = kernel_variants()[a], &other = kernel_variants()[b];
      EXPECT_FALSE(one.key == other.key && (one.architectures & other.architectures) != 0) << describe(one.key);
    }
  }
}

TEST(CudaManifest, KnownDevicesAreFoundByNameAndArchitecture) {
  ASSERT_NE(known_device("h200"), nullptr);
  EXPECT_EQ(known_device("h200")->architecture, 90);
  EXPECT_EQ(known_device("sm_86")->architecture, 86);
  EXPECT_EQ(known_device("abacus"), nullptr);
  for (const CudaDevice& device : known_devices()) EXPECT_EQ(architecture_of(device.capability), device.architecture);
  EXPECT_EQ(architecture_of(87), 86);
  EXPECT_EQ(architecture_of(103), 100);
  EXPECT_EQ(architecture_of(75), 75);
}

TEST(Recipe, HasOptionsAndAHashOfEverythingThatMatters) {
  const KernelKey one{KernelId::kSelfTest, {1}}, two{KernelId::kSelfTest, {2}};
  EXPECT_EQ(describe(one), "cuda.selftest STROBE_STEP=1");
  const Recipe recipe = recipe_for(one, 90);
  EXPECT_EQ(recipe.options, (std::vector<std::string>{"-std=c++20", "-DSTROBE_STEP=1", "-DSTROBE_ARCHITECTURE=90"}));
  EXPECT_EQ(hash_of(recipe, "sm_90"), hash_of(recipe_for(one, 90), "sm_90"));
  EXPECT_NE(hash_of(recipe, "sm_90"), hash_of(recipe, "sm_80"));
  EXPECT_NE(hash_of(recipe, "sm_90"), hash_of(recipe_for(two, 90), "sm_90"));
  Recipe changed = recipe;
  const std::string text = std::string(recipe.texts[0].text) + " ";
  changed.texts[0].text = text;
  EXPECT_NE(hash_of(recipe, "sm_90"), hash_of(changed, "sm_90"));
}

}  // namespace
}  // namespace strobe::cuda
