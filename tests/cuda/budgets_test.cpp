// How the build's kernel compiler reads what ptxas says, and which jobs it makes of the manifest.
#include <gtest/gtest.h>

#include <set>

#include "kernels/compile.hpp"

namespace strobe::kernels {
namespace {

TEST(Usage, IsReadFromTheMessagesOfNvcc) {
  const Usage usage = usage_in(
      "ptxas info    : 0 bytes gmem\n"
      "ptxas info    : Compiling entry function 'strobe_selftest' for 'sm_90'\n"
      "ptxas info    : Function properties for strobe_selftest\n"
      "    152 bytes stack frame, 120 bytes spill stores, 292 bytes spill loads\n"
      "ptxas info    : Used 255 registers, used 1 barriers, 152 bytes cumulative stack size, 4096 bytes smem, 1096 "
      "bytes "
      "cmem[0]\n"
      "ptxas info    : Function properties for helper\n"
      "    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n");
  EXPECT_EQ(usage.registers, 255);
  EXPECT_EQ(usage.stack_bytes, 152);
  EXPECT_EQ(usage.spill_bytes, 120 + 292 + 4 + 8);
  EXPECT_EQ(usage.shared_bytes, 4096);
}

TEST(Usage, IsReadFromTheMessagesOfNvrtc) {
  const Usage usage = usage_in(
      "ptxas info    : Function properties for strobe_selftest\n"
      "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Used 8 registers, used 0 barriers\n"
      "ptxas info    : Compile time = 8.160 ms\n");
  EXPECT_EQ(usage.registers, 8);
  EXPECT_EQ(usage.spill_bytes, 0);
  EXPECT_EQ(usage.shared_bytes, 0);
}

TEST(Jobs, AreTheVariantsOfTheManifestForTheirArchitectures) {
  const auto jobs = jobs_for({80, 86, 89, 90, 100, 120});
  std::size_t expected = 0;
  for (const cuda::KernelVariant& variant : cuda::kernel_variants()) {
    for (const int architecture : cuda::kArchitectures) expected += cuda::includes(variant, architecture) ? 1 : 0;
  }
  EXPECT_EQ(jobs.size(), expected);
  EXPECT_TRUE(jobs_for({90}, "no such kernel").empty());
  std::set<const cuda::KernelVariant*> variants;
  for (const Job& job : one_for_each_variant(jobs)) EXPECT_TRUE(variants.insert(job.variant).second);
  EXPECT_EQ(variants.size(), cuda::kernel_variants().size());
}

}  // namespace
}  // namespace strobe::kernels
