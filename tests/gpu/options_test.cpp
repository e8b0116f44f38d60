// Every option alone, sizes around every boundary, and random combinations, on every CUDA kernel that serves them:
// the cases of kernels_test and random_test.
#include <cstdlib>

#include "cases/generate.hpp"
#include "gpu/gpu_test.hpp"
#include "option_cases.hpp"

namespace strobe::cases {
namespace {

class GpuOption : public OnGpuWith<std::tuple<const char*, const char*>> {
 protected:
  void expect(const char* (*shape)(std::string_view option)) {
    const auto [option, type] = GetParam();
    expect_served(option_alone(shape(option), option, type));
  }
};

TEST_P(GpuOption, Prefill) { expect(prefill_shape); }
TEST_P(GpuOption, Decode) { expect(decode_shape); }
TEST_P(GpuOption, Backward) { expect(backward_shape); }
INSTANTIATE_TEST_SUITE_P(Options, GpuOption, testing::Combine(testing::ValuesIn(kOptions), testing::ValuesIn(kTypes)));

class GpuForwardOption : public OnGpuWith<const char*> {};
TEST_P(GpuForwardOption, AgreesWithTheReference) { expect_served(std::string("batch=2 ") + GetParam()); }
INSTANTIATE_TEST_SUITE_P(Options, GpuForwardOption, testing::ValuesIn(kForwardOptions));

class GpuBackwardOption : public OnGpuWith<const char*> {};
TEST_P(GpuBackwardOption, AgreesWithTheReference) { expect_served(std::string("pass=backward batch=2 ") + GetParam()); }
INSTANTIATE_TEST_SUITE_P(Options, GpuBackwardOption, testing::ValuesIn(kBackwardOptions));

using GpuSizes = OnGpu;
TEST_F(GpuSizes, Lengths) { expect_cases(length_cases()); }
TEST_F(GpuSizes, HeadDims) { expect_cases(dim_cases()); }
TEST_F(GpuSizes, Groups) { expect_cases(group_cases()); }
TEST_F(GpuSizes, NoSequences) { expect_cases({"batch=0 q=5 k=6 dim=8/8", "pass=backward batch=0 q=5 k=6 dim=8/8"}); }
TEST_F(GpuSizes, ManyTiles) {
  expect_cases({"q=700 k=900 heads=2/1 dim=64 dtype=bfloat16 causal", "q=1 k=5000 heads=8/1 dim=128 dtype=bfloat16",
                "q=3 k=3000 heads=16/2 dim=64 dtype=float16 batch=3 key_lengths=3000,1,2049",
                "q=1000 k=300 heads=2 dim=128 dtype=float16 window=100,20",
                // More blocks of keys than a task of sm90.forward has bits for them.
                "q=70 k=70000 heads=1 dim=128 dtype=bfloat16 documents=apart",
                "q=70 k=40000 heads=1 dim=256 dtype=bfloat16 prefix=39000 window=300,5",
                "pass=backward q=700 k=900 heads=2/1 dim=64 dtype=bfloat16 causal",
                "pass=backward q=500 k=500 heads=2/2 dim=128 dtype=float16",
                "pass=backward q=300 k=300 heads=1/1 dim=256 dtype=bfloat16"});
}

constexpr int kShards = 32;  // kernels that are not built in are compiled, so many processes share the cases

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class GpuCombinations : public OnGpuWith<int> {};
TEST_P(GpuCombinations, AgreeWithTheReference) {
  const std::uint64_t count = environment("STROBE_RANDOM_CASES", 1000), first = environment("STROBE_RANDOM_SEED", 0);
  for (std::uint64_t n = std::uint64_t(GetParam()); n < count; n += kShards) {
    expect_case(print_case(random_case(first + n)));
  }
}
INSTANTIATE_TEST_SUITE_P(Random, GpuCombinations, testing::Range(0, kShards));

}  // namespace
}  // namespace strobe::cases
