// Seeded random combinations of options. STROBE_RANDOM_CASES says how many (default 1000), STROBE_RANDOM_SEED where to
// begin (default 0); a failure prints the command that repeats it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "cases/generate.hpp"
#include "cases/verify.hpp"
#include "executors.hpp"

namespace strobe::cases {
namespace {

constexpr int kShards = 8;  // tests that share the cases, so that ctest runs them side by side

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class Combinations : public testing::TestWithParam<int> {};

TEST_P(Combinations, AgreeWithTheReference) {
  const std::uint64_t count = environment("STROBE_RANDOM_CASES", 1000), first = environment("STROBE_RANDOM_SEED", 0);
  for (std::uint64_t n = std::uint64_t(GetParam()); n < count; n += kShards) {
    for (const std::string& failure : check_case_everywhere(random_case(first + n), executor()))
      ADD_FAILURE() << failure;
  }
}

INSTANTIATE_TEST_SUITE_P(Random, Combinations, testing::Range(0, kShards));

}  // namespace
}  // namespace strobe::cases
