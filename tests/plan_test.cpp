// Plans: what is chosen and why, that they need no data, and that running one allocates nothing.
#include "plan/plan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "allocations.hpp"
#include "cases/verify.hpp"
#include "executors.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

Problem problem_of(const std::string& line) { return build(parse_case(line))->checked.problem; }

std::string chosen(const std::string& line, Isa best) {
  return plan::choose(problem_of(line), CpuDevice{.best = best}).kernel->name;
}

TEST(Choice, TakesTheBestInstructionSetThatServesTheType) {
  EXPECT_EQ(chosen("q=100 k=100", Isa::kSse4), "cpu.forward.sse4");
  EXPECT_EQ(chosen("q=100 k=100", Isa::kAvx2), "cpu.forward.avx2");
  EXPECT_EQ(chosen("q=100 k=100", Isa::kAvx512), "cpu.forward.avx512");
  EXPECT_EQ(chosen("q=100 k=100", Isa::kAvx512Bf16), "cpu.forward.avx512");
  EXPECT_EQ(chosen("q=100 k=100 dtype=bfloat16", Isa::kAvx512Bf16), "cpu.forward.avx512_bf16");
  EXPECT_EQ(chosen("q=100 k=100 dtype=float16", Isa::kAvx512Bf16), "cpu.forward.avx512");
  EXPECT_EQ(chosen("q=100 k=100 dtype=bfloat16", Isa::kAmxBf16), "cpu.forward.amx_bf16");
  EXPECT_EQ(chosen("q=100 k=100 dtype=float16", Isa::kAmxBf16), "cpu.forward.amx_bf16");
  EXPECT_EQ(chosen("q=1 k=100 dtype=bfloat16", Isa::kAmxBf16), "cpu.decode.avx512_bf16");
  EXPECT_EQ(chosen("pass=backward q=100 k=100 dtype=bfloat16", Isa::kAmxBf16), "cpu.backward.amx_bf16");
  EXPECT_EQ(chosen("q=1 k=100", Isa::kAvx2), "cpu.decode.avx2");
  EXPECT_EQ(chosen("pass=backward q=100 k=100", Isa::kAvx2), "cpu.backward.avx2");
}

TEST(Choice, LeavesTheDotProductWhereItIsSlow) {
  const CpuDevice device{.best = Isa::kAvx512Bf16, .dot_pays = false};
  for (const char* line : {"q=100 k=100 dtype=bfloat16", "q=1 k=100 dtype=bfloat16"}) {
    const Problem problem = problem_of(line);
    const plan::Choice choice = plan::choose(problem, device);
    EXPECT_EQ(choice.decision.isa, Isa::kAvx512) << line;
    EXPECT_NE(plan::explain(problem, device, choice).find("dot product is slower"), std::string::npos);
  }
}

TEST(Choice, SplitsForTilesWhereSequencesAreLongAndQueriesMany) {
  const CpuDevice device{.best = Isa::kAmxBf16, .short_splits_pay = false};
  const auto isa = [&](const std::string& line) { return plan::choose(problem_of(line), device).decision.isa; };
  EXPECT_EQ(isa("q=600 k=1000"), Isa::kAvx512);
  EXPECT_EQ(isa("q=600 k=1024"), Isa::kAmxBf16);
  EXPECT_EQ(isa("q=500 k=1024"), Isa::kAvx512);
  EXPECT_EQ(isa("q=150 k=1024 heads=8/2"), Isa::kAmxBf16);
  EXPECT_EQ(isa("q=100 k=100 dtype=float16"), Isa::kAvx512);
  EXPECT_EQ(isa("q=60 k=300 dtype=float16"), Isa::kAvx512);
  EXPECT_EQ(isa("q=100 k=300 dtype=float16"), Isa::kAmxBf16);
  EXPECT_EQ(isa("q=100 k=100 dtype=bfloat16"), Isa::kAmxBf16);
  EXPECT_EQ(isa("pass=backward q=600 k=1024"), Isa::kAmxBf16);
  EXPECT_EQ(isa("pass=backward q=600 k=1000"), Isa::kAvx512);
  EXPECT_EQ(isa("pass=backward q=100 k=300 dtype=float16"), Isa::kAmxBf16);
  const std::string packed = "batch=2 packed_queries=1000,100 packed_keys=3000,200";
  EXPECT_EQ(isa(packed), Isa::kAmxBf16);
  EXPECT_EQ(isa(packed + " batch_invariant"), Isa::kAvx512);
  const Problem problem = problem_of("q=100 k=1000");
  EXPECT_NE(plan::explain(problem, device, plan::choose(problem, device)).find("pays for longer"), std::string::npos);
}

TEST(Choice, TakesTheNextBestWhereTheSystemRefusesTiles) {
  const CpuDevice device{.best = Isa::kAmxBf16, .allows_tiles = [] { return false; }};
  for (const char* line : {"q=100 k=100 dtype=bfloat16", "pass=backward q=100 k=100 dtype=bfloat16"}) {
    const Problem problem = problem_of(line);
    const plan::Choice choice = plan::choose(problem, device);
    EXPECT_EQ(choice.decision.isa, Isa::kAvx512Bf16) << line;
    EXPECT_NE(plan::explain(problem, device, choice).find("does not let this process use"), std::string::npos);
  }
}

TEST(Choice, AsksForTilesOnlyWhereItWantsThem) {
  static int asked = 0;
  const CpuDevice device{.best = Isa::kAmxBf16, .short_splits_pay = false, .allows_tiles = [] { return ++asked > 0; }};
  for (const char* line : {"q=100 k=100", "q=1 k=100 dtype=bfloat16", "pass=backward q=100 k=100 dtype=float16"}) {
    const Problem problem = problem_of(line);
    plan::explain(problem, device, plan::choose(problem, device));
  }
  EXPECT_EQ(asked, 0);
  plan::choose(problem_of("q=100 k=100 dtype=bfloat16"), device);
  EXPECT_GT(asked, 0);
}

TEST(Choice, PacksKeysForManyRowsThatUseAllOfThem) {
  const CpuDevice device{.best = Isa::kAvx2};
  const auto packed_heads = [&](const char* line) {
    return plan::choose(problem_of(line), device).decision.packed_heads;
  };
  EXPECT_EQ(packed_heads("q=1000 k=1000 heads=4/2 dim=8"), 2);
  EXPECT_EQ(packed_heads("q=64 k=1000 heads=2 dim=8"), 0);
  EXPECT_EQ(packed_heads("q=1000 k=1024 heads=2 dim=8 page=64 key_lengths=1024"), 0);
  EXPECT_EQ(packed_heads("q=2000 k=33000 heads=2 dim=64"), 1);
  EXPECT_EQ(packed_heads("q=1000 k=33000 heads=2 dim=64"), 0);  // a single group of rows
}

TEST(Choice, IsTheSameForEveryBatchAndLength) {
  for (const char* type : {"float32", "bfloat16"}) {
    const std::string shape = std::string(" heads=4/2 dtype=") + type;
    const std::string small = chosen("q=64 k=64" + shape, Isa::kAvx512Bf16);
    EXPECT_EQ(chosen("q=700 k=900 batch=5" + shape, Isa::kAvx512Bf16), small);
  }
}

TEST(Choice, EveryKernelOfTheManifestIsTheBestForSomething) {
  for (const plan::Kernel& kernel : plan::kernels()) {
    EXPECT_GT(std::strlen(kernel.summary), 10u) << kernel.name;
    bool taken = false;
    for (int type = 0; type <= int(DataType::kFloat8E5M2); ++type) {
      if (!(kernel.types >> type & 1u)) continue;
      const char* shape = kernel.variant == Variant::kBackward ? "pass=backward q=50 k=50"
                          : kernel.variant == Variant::kDecode ? "q=1 k=50"
                                                               : "q=50 k=50";
      taken |= chosen(std::string(shape) + " dtype=" + name_of(DataType(type)), kernel.isa) == kernel.name;
    }
    EXPECT_TRUE(taken) << kernel.name;
  }
}

TEST(Choice, GivesEveryOtherKernelAReason) {
  const Problem problem = problem_of("q=100 k=100");
  const CpuDevice device{.best = Isa::kAvx2};
  const plan::Choice choice = plan::choose(problem, device);
  const auto rejections = plan::rejections(problem, device, choice);
  EXPECT_EQ(rejections.size() + 1, plan::kernels().size());
  const std::string text = plan::explain(problem, device, choice);
  EXPECT_NE(text.find(choice.kernel->name), text.npos);
  for (const plan::Rejection& rejection : rejections) {
    EXPECT_FALSE(rejection.reason.empty()) << rejection.kernel;
    EXPECT_NE(text.find(rejection.kernel), text.npos) << text;
    EXPECT_NE(text.find(rejection.reason), text.npos) << text;
  }
}

TEST(Choice, SplitsLongCachesButNotShortOnes) {
  const CpuDevice device{.best = Isa::kAvx2, .threads = 2};
  EXPECT_EQ(plan::choose(problem_of("q=1 k=128"), device).decision.split_keys, 0);
  EXPECT_GT(plan::choose(problem_of("q=1 k=20000 dim=8"), device).decision.split_keys, 0);
  EXPECT_EQ(plan::choose(problem_of("q=1 k=20000 dim=8 splits=1"), device).decision.split_keys, 0);
}

TEST(Choice, SplitsLongCachesIntoFewerPartsUnlessTheBatchMustNotMatter) {
  const CpuDevice device{.best = Isa::kAvx2, .threads = 2};
  const auto split_keys = [&](const char* line) { return plan::choose(problem_of(line), device).decision.split_keys; };
  EXPECT_EQ(split_keys("q=1 k=9000 dim=8"), 1024);
  EXPECT_EQ(split_keys("q=1 k=20000 dim=8"), 2048);
  EXPECT_EQ(split_keys("q=1 k=100000 dim=8"), 4096);
  EXPECT_EQ(split_keys("q=1 k=100000 dim=8 batch_invariant"), 1024);
}

TEST(Choice, DoesNotSplitByTheNumberOfThreads) {
  const Problem problem = problem_of("q=1 k=20000 dim=8");
  const auto few = plan::choose(problem, CpuDevice{.threads = 1}).decision;
  const auto many = plan::choose(problem, CpuDevice{.threads = 64}).decision;
  EXPECT_EQ(few.split_keys, many.split_keys);
}

TEST(Cost, CountsByTheUsualConvention) {
  Problem problem = problem_of("batch=2 q=64 k=128 heads=4/2 dim=32/16");
  EXPECT_DOUBLE_EQ(plan::cost(problem).flops, 2.0 * 2 * 4 * 64 * 128 * (32 + 16));
  problem.pass = Pass::kBackward;
  EXPECT_DOUBLE_EQ(plan::cost(problem).flops, 2.5 * 2.0 * 2 * 4 * 64 * 128 * (32 + 16));
  const double full = plan::cost(problem_of("q=512 k=512")).flops;
  EXPECT_NEAR(plan::cost(problem_of("q=512 k=512 causal")).flops / full, 0.5, 0.01);
  EXPECT_NEAR(plan::cost(problem_of("q=512 k=512 window=63,0")).flops / full, 64.0 / 512, 0.02);
}

TEST(Plan, NeedsNoData) {
  const Tensor tensor = Tensor::contiguous(nullptr, DataType::kBFloat16, {2, 1000, 8, 128});
  const Plan plan = plan_forward({.query = tensor, .key = tensor, .value = tensor}, {.output = tensor, .lse = {}});
  EXPECT_EQ(std::string(plan.kernel()).rfind("cpu.forward.", 0), 0u);
  EXPECT_GT(std::strlen(plan.why()), 0u);
  EXPECT_NE(plan.explain().find(plan.kernel()), std::string::npos);
  EXPECT_GT(plan.key_block(), 0);
  EXPECT_GT(plan.query_tile(), 0);
}

TEST(Plan, WorkspaceIsLinearInLength) {
  const auto bytes = [](Pass pass, std::int64_t length) {
    const Tensor tensor = Tensor::contiguous(nullptr, DataType::kFloat32, {1, length, 1, 64});
    const Tensor lse = Tensor::contiguous(nullptr, DataType::kFloat32, {1, 1, length});
    const Attention attention{.query = tensor, .key = tensor, .value = tensor};
    if (pass == Pass::kForward) return plan_forward(attention, {.output = tensor, .lse = lse}).workspace_bytes();
    return plan_backward(attention, {.output = tensor, .lse = lse, .grad_output = tensor, .grad_lse = {}},
                         {.query = tensor, .key = tensor, .value = tensor, .bias = {}, .sink = {}})
        .workspace_bytes();
  };
  for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
    EXPECT_LE(bytes(pass, 1 << 15), std::size_t(64) << 20);
    EXPECT_LE(bytes(pass, 1 << 18), 9 * bytes(pass, 1 << 15) + (1 << 20));
  }
}

class PlannedRun : public testing::TestWithParam<const char*> {};

TEST_P(PlannedRun, AllocatesNothingAndAgreesWithTheReference) {
  const auto instance = build(parse_case(GetParam()));
  const bool is_forward = instance->description.pass == Pass::kForward;
  const auto pool = make_thread_pool(2);
  const Plan plan = is_forward ? plan_forward(instance->attention, instance->outputs, {.executor = pool.get()})
                               : plan_backward(instance->attention, instance->upstream, instance->gradients,
                                               {.executor = pool.get()});
  const Tensor bytes{
      .dtype = DataType::kBool, .rank = 1, .shape = {std::int64_t(plan.workspace_bytes())}, .strides = {1}};
  const Storage workspace("workspace", bytes, 0);
  const Execution execution{
      .executor = pool.get(), .workspace = workspace.tensor().data, .workspace_bytes = plan.workspace_bytes()};
  for (int round = 0; round < 2; ++round) {
    reset(*instance);
    const std::size_t before = allocations();
    if (is_forward) {
      plan.run(instance->attention, instance->outputs, execution);
    } else {
      plan.run(instance->attention, instance->upstream, instance->gradients, execution);
    }
    EXPECT_EQ(allocations() - before, 0u);
  }
  EXPECT_TRUE(workspace.surroundings_intact());
  const Verdict verdict = Judge(*instance).judge();
  EXPECT_TRUE(verdict.passed()) << verdict.failures.front();
}

INSTANTIATE_TEST_SUITE_P(Cases, PlannedRun,
                         testing::Values("q=100 k=200 heads=4/2 batch=2 causal", "q=1 k=5000 heads=4/2 dim=32",
                                         "q=100 k=200 heads=4/2 batch=2 dtype=bfloat16 window=20,20",
                                         "q=3 k=96 page=16 batch=2 key_lengths=90,0 append=3 rotary=32 causal",
                                         "batch=3 packed_queries=100,1,33 packed_keys=100,300,64 heads=4/2 dim=32",
                                         "pass=backward q=100 k=200 heads=4/2 batch=2 causal",
                                         "pass=backward q=100 k=90 heads=4/2 dtype=bfloat16 bias=hk sink"));

TEST(Plan, RefusesAnotherProblem) {
  const auto planned = build(parse_case("q=20 k=30")), other = build(parse_case("q=20 k=31"));
  const Plan plan = plan_forward(planned->attention, planned->outputs);
  EXPECT_NO_THROW(plan.run(planned->attention, planned->outputs));
  EXPECT_THROW(plan.run(other->attention, other->outputs), Error);
  for (const Storage& result : other->results) EXPECT_FALSE(result.changed());
}

TEST(Plan, RefusesASmallOrCrookedWorkspace) {
  const auto instance = build(parse_case("q=100 k=300"));
  const Plan plan = plan_forward(instance->attention, instance->outputs);
  ASSERT_GT(plan.workspace_bytes(), 0u);
  std::vector<unsigned char> memory(plan.workspace_bytes() + 128);
  void* aligned = memory.data();
  std::size_t room = memory.size();
  std::align(64, plan.workspace_bytes(), aligned, room);
  const auto run_with = [&](void* workspace, std::size_t bytes) {
    plan.run(instance->attention, instance->outputs,
             {.executor = nullptr, .workspace = workspace, .workspace_bytes = bytes});
  };
  EXPECT_THROW(run_with(aligned, plan.workspace_bytes() - 1), Error);
  EXPECT_THROW(run_with(static_cast<char*>(aligned) + 4, plan.workspace_bytes()), Error);
  EXPECT_NO_THROW(run_with(aligned, plan.workspace_bytes()));
}

TEST(Call, AllocatesNothingOnceItsThreadHasAWorkspace) {
  const auto instance = build(parse_case("q=64 k=64 heads=1 dim=64"));
  const auto pool = make_thread_pool(1);
  for (int round = 0; round < 3; ++round) {
    const std::size_t before = allocations();
    forward(instance->attention, instance->outputs, {.executor = pool.get()});
    if (round > 0) {
      EXPECT_EQ(allocations() - before, 0u);
    }
  }
}

TEST(Call, LeavesOutputsAloneWhenItsArgumentsAreRefused) {
  const auto instance = build(parse_case("q=20 k=30"));
  Attention wrong = instance->attention;
  wrong.softcap = -1.0f;
  EXPECT_THROW(forward(wrong, instance->outputs), Error);
  for (const Storage& result : instance->results) EXPECT_FALSE(result.changed());
}

}  // namespace
}  // namespace strobe::cases
