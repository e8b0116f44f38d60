// Every kernel of the manifest with every type that it serves, and every option alone on every instruction set that
// this machine has, against the reference.
#include <gtest/gtest.h>

#include "cases/verify.hpp"
#include "cpu/cpu.hpp"
#include "executors.hpp"
#include "option_cases.hpp"

namespace strobe::cases {
namespace {

struct ManifestRow {
  const plan::Kernel* kernel;
  DataType type;
};

std::vector<ManifestRow> manifest_rows() {
  std::vector<ManifestRow> rows;
  for (const plan::Kernel& kernel : plan::kernels()) {
    for (int type = 0; type <= int(DataType::kFloat8E5M2); ++type) {
      if (kernel.types >> type & 1u) rows.push_back({&kernel, DataType(type)});
    }
  }
  return rows;
}

const char* shape_for(Variant variant) {
  switch (variant) {
    case Variant::kPrefill:
      return "q=150 k=170 heads=4/2 dim=64/64 batch=2 causal";
    case Variant::kDecode:
      return "q=1 k=300 heads=8/2 dim=128/128 batch=2";
    case Variant::kBackward:
      break;
  }
  return "pass=backward q=130 k=150 heads=4/2 dim=64/64 batch=2 causal";
}

class Manifest : public testing::TestWithParam<ManifestRow> {};

TEST_P(Manifest, AgreesWithTheReference) {
  const auto [kernel, type] = GetParam();
  if (kernel->isa > cpu::this_machine().best) GTEST_SKIP() << "this machine has no " << name_of(kernel->isa);
  const Case c = parse_case(std::string(shape_for(kernel->variant)) + " dtype=" + name_of(type));
  const auto instance = build(c);
  const plan::Choice choice = choose(*instance, kernel->isa, executor());
  ASSERT_STREQ(choice.kernel->name, kernel->name);
  const Verdict verdict = check_case(c, kernel->isa, executor());
  for (const std::string& failure : verdict.failures) {
    ADD_FAILURE() << kernel->name << ": " << failure << "\n  strobe check --case \"" << print_case(c) << "\"";
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Manifest, testing::ValuesIn(manifest_rows()), [](const auto& row) {
  std::string name = std::string(row.param.kernel->name) + "_" + name_of(row.param.type);
  for (char& letter : name) {
    if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
  }
  return name;
});

void expect_case(const std::string& line) {
  SCOPED_TRACE(line);
  for (const std::string& failure : check_case_everywhere(parse_case(line), executor())) ADD_FAILURE() << failure;
}

class OptionAlone : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  static void expect(const char* (*shape)(std::string_view option)) {
    const auto [option, type] = GetParam();
    expect_case(option_alone(shape(option), option, type));
  }
};

TEST_P(OptionAlone, Prefill) { expect(prefill_shape); }
TEST_P(OptionAlone, PackedPrefill) { expect(packed_prefill_shape); }
TEST_P(OptionAlone, Decode) { expect(decode_shape); }
TEST_P(OptionAlone, Backward) { expect(backward_shape); }

INSTANTIATE_TEST_SUITE_P(Options, OptionAlone,
                         testing::Combine(testing::ValuesIn(kOptions), testing::ValuesIn(kTypes)));

class ForwardOption : public testing::TestWithParam<const char*> {};
TEST_P(ForwardOption, AgreesWithTheReference) { expect_case(std::string("batch=2 ") + GetParam()); }

INSTANTIATE_TEST_SUITE_P(Options, ForwardOption, testing::ValuesIn(kForwardOptions));

class BackwardOption : public testing::TestWithParam<const char*> {};
TEST_P(BackwardOption, AgreesWithTheReference) { expect_case(std::string("pass=backward batch=2 ") + GetParam()); }

INSTANTIATE_TEST_SUITE_P(Options, BackwardOption, testing::ValuesIn(kBackwardOptions));

void expect_cases(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) expect_case(line);
}

/// Long enough for several chunks of queries and keys (1024 rows each at least).
TEST(Backward, OfSeveralChunks) {
  expect_case("pass=backward q=2100 k=2300 heads=2/1 dim=16/24 causal seed=3");
  expect_case("pass=backward q=3200 k=2300 heads=2/2 dim=16/16 window=700,100 top_left bias=hq sink grad_lse seed=4");
  expect_case("pass=backward dtype=bfloat16 q=2200 k=2100 heads=2/1 dim=8/8 bias=k dropout=0.25 seed=5");
}

/// Wide enough for several spans of queries in a chunk (2 MiB of rows at most).
TEST(Backward, OfSeveralSpans) {
  expect_case("pass=backward q=1500 k=300 heads=2/1 dim=256/240 seed=6");
  expect_case("pass=backward q=1500 k=1400 heads=1/1 dim=256/256 causal softcap=10 seed=7");
  expect_case("pass=backward dtype=bfloat16 q=1300 k=700 heads=2/1 dim=240/256 window=100,50 grads=q seed=8");
}

TEST(Sizes, Lengths) { expect_cases(length_cases()); }
TEST(Sizes, HeadDims) { expect_cases(dim_cases()); }
TEST(Sizes, Groups) { expect_cases(group_cases()); }
TEST(Sizes, NoSequences) { expect_cases({"batch=0 q=5 k=6 dim=8/8", "pass=backward batch=0 q=5 k=6 dim=8/8"}); }

}  // namespace
}  // namespace strobe::cases
