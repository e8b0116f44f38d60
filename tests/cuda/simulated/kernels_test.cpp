// The CUDA kernels of attention on the simulated GPU: every option alone, in one type for each pass, every built
// dimension, lengths around the tiles' sizes, and architectures with other tiles. tests/gpu has all of it on a real
// GPU, where it is quick.
#include "gpu/gpu_test.hpp"
#include "option_cases.hpp"

namespace strobe::cases {
namespace {

/// Types take turns from option to option, and the passes begin with another one each.
const char* type_for(int option, int pass) { return kTypes[(option + pass) % 3]; }

class SimulatedOption : public OnGpuWith<int> {
 protected:
  void expect(const char* (*shape)(std::string_view option), int pass) {
    const char* option = kOptions[GetParam()];
    expect_served(option_alone(shape(option), option, type_for(GetParam(), pass)));
  }
};
TEST_P(SimulatedOption, Prefill) { expect(prefill_shape, 0); }
TEST_P(SimulatedOption, Decode) { expect(decode_shape, 1); }
TEST_P(SimulatedOption, Backward) { expect(backward_shape, 2); }
INSTANTIATE_TEST_SUITE_P(Options, SimulatedOption, testing::Range(0, int(std::size(kOptions))));

class SimulatedDim : public OnGpuWith<std::tuple<const char*, const char*>> {};
TEST_P(SimulatedDim, AgreesWithTheReference) {
  const auto [dim, type] = GetParam();
  const std::string words = std::string(" dim=") + dim + " dtype=" + type + " causal";
  expect_served("q=70 k=150 heads=2/1" + words);
  expect_served("q=2 k=150 heads=4/1" + words);
  expect_served("pass=backward q=70 k=90 heads=2/1" + words);
}
INSTANTIATE_TEST_SUITE_P(Dims, SimulatedDim,
                         testing::Combine(testing::Values("32", "64", "96", "128", "192/128", "256", "40/24"),
                                          testing::ValuesIn(kTypes)));

class SimulatedForwardOption : public OnGpuWith<const char*> {};
TEST_P(SimulatedForwardOption, AgreesWithTheReference) { expect_served(std::string("batch=2 ") + GetParam()); }
INSTANTIATE_TEST_SUITE_P(Options, SimulatedForwardOption, testing::ValuesIn(kForwardOptions));

class SimulatedBackwardOption : public OnGpuWith<const char*> {};
TEST_P(SimulatedBackwardOption, AgreesWithTheReference) {
  expect_served(std::string("pass=backward batch=2 ") + GetParam());
}
INSTANTIATE_TEST_SUITE_P(Options, SimulatedBackwardOption, testing::ValuesIn(kBackwardOptions));

}  // namespace
}  // namespace strobe::cases
