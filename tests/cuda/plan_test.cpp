// Plans for GPUs that are not here: what is chosen, that it explains itself, and what is refused and how.
#include "plan/plan.hpp"

#include <gtest/gtest.h>

#include <string>

#include "cases/instance.hpp"
#include "cuda/families.hpp"

namespace strobe::cases {
namespace {

Problem problem_of(const std::string& line) { return build(parse_case(line))->checked.problem; }

class CudaPlan : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (cuda::families().empty()) GTEST_SKIP() << "there is no CUDA kernel yet";
  }
  static const CudaDevice& device() { return *cuda::known_device(GetParam()); }

  /// Every line of the list that some kernel serves on the device.
  template <typename Body>
  static void for_served(std::initializer_list<const char*> lines, const Body& body) {
    for (const std::string line : lines) {
      for (const char* type : {"float16", "bfloat16", "float32"}) {
        SCOPED_TRACE(line + " dtype=" + type);
        const Problem problem = problem_of(line + " dtype=" + type);
        if (!plan::candidates(problem, device()).empty()) body(problem);
      }
    }
  }
};

constexpr std::initializer_list<const char*> kLines = {
    "q=50 k=50 heads=4/2 dim=64 causal",
    "q=50 k=70 heads=4/2 dim=128 window=100,- softcap=5",
    "q=20 k=20 heads=2 dim=256 bias=hqk sink",
    "q=20 k=20 heads=2 dim=40/24 mask=k dropout=0.5 documents=apart",
    "q=1 k=90 heads=8/2 dim=128 batch=3",
    "q=1 k=640 page=16 key_lengths=300,2 batch=2 heads=8/1 dim=64",
    "pass=backward q=50 k=50 heads=4/2 dim=64 causal",
    "pass=backward q=30 k=20 heads=2 dim=128 bias=hqk sink",
    "pass=backward q=20 k=20 heads=1 dim=256",
};

TEST_P(CudaPlan, TakesTheFirstCandidateAndExplainsIt) {
  for_served(kLines, [](const Problem& problem) {
    const plan::CudaChoice choice = plan::choose(problem, device());
    const cuda::CudaDecision& decision = choice.decision;
    EXPECT_EQ(choice.kernel, plan::candidates(problem, device()).front().kernel);
    ASSERT_GT(decision.kernel_count, 0);
    EXPECT_LE(decision.kernel_count, cuda::kMaxKernels);
    EXPECT_GT(decision.query_tile, 0);
    EXPECT_GT(decision.key_block, 0);
    const std::string text = plan::explain(problem, device(), choice);
    for (int i = 0; i < decision.kernel_count; ++i) {
      EXPECT_NE(text.find(cuda::describe(decision.kernels[i])), text.npos) << text;
    }
    EXPECT_NE(text.find(choice.why), text.npos) << text;
    EXPECT_NE(text.find(device().name), text.npos) << text;
    const auto rejections = plan::rejections(problem, device(), choice);
    EXPECT_EQ(rejections.size() + 1, cuda::families().size());
    for (const plan::Rejection& rejection : rejections) {
      EXPECT_FALSE(rejection.reason.empty()) << rejection.kernel;
      EXPECT_NE(text.find(rejection.kernel), text.npos) << text;
    }
  });
}

TEST_P(CudaPlan, IsNotKeyedOnBatchOrLength) {
  for_served({"q=320 k=32 heads=4/2 dim=128 causal", "q=64 k=32 heads=4/2 dim=128 causal", "q=1 k=32 heads=8/2 dim=64",
              "pass=backward q=32 k=32 heads=4/2 dim=64"},
             [](Problem problem) {
               const auto kernel = [&] { return plan::choose(problem, device()).decision.kernels[0]; };
               const cuda::KernelKey first = kernel();
               const bool few =
                   problem.pass == Pass::kForward && problem.query_length <= 64;  // have kernels of their own
               for (const std::int64_t length : {700, 4096, 100000}) {
                 for (const std::int64_t batch : {1, 3, 64}) {
                   problem.batch = batch;
                   problem.key_length = length;
                   if (!few) problem.query_length = length;
                   problem.total_keys = batch * length;
                   problem.total_queries = batch * problem.query_length;
                   EXPECT_EQ(kernel(), first) << length << " x " << batch;
                 }
               }
             });
}

TEST_P(CudaPlan, WorkspaceIsLinearInLength) {
  for_served({"q=32 k=32 heads=4/2 dim=128 causal", "pass=backward q=32 k=32 heads=4/2 dim=64"}, [](Problem problem) {
    const auto bytes_at = [&](std::int64_t length) {
      problem.query_length = problem.key_length = problem.total_queries = problem.total_keys = length;
      return plan::choose(problem, device()).decision.workspace_bytes;
    };
    EXPECT_LE(bytes_at(1 << 18), 9 * bytes_at(1 << 15) + (64 << 20));
  });
}

TEST_P(CudaPlan, CountsWhatComesBeforeAttention) {
  const std::string plain = "q=3 k=96 page=16 key_lengths=90,0 batch=2 heads=4/2 dim=64 dtype=bfloat16";
  const Problem without = problem_of(plain), appending = problem_of(plain + " append=3"),
                turning = problem_of(plain + " append=3 rotary=64 causal");
  if (plan::candidates(turning, device()).empty()) GTEST_SKIP() << "no CUDA kernel serves it";
  EXPECT_FALSE(plan::choose(without, device()).decision.preparation.needed);
  EXPECT_EQ(plan::choose(appending, device()).decision.preparation.workspace_bytes, 0u);
  const plan::CudaChoice choice = plan::choose(turning, device());
  const cuda::Preparation& preparation = choice.decision.preparation;
  EXPECT_TRUE(preparation.needed);
  EXPECT_EQ(preparation.workspace_bytes, 2u * 3 * 4 * 64 * 2);
  EXPECT_GE(choice.decision.workspace_bytes, preparation.workspace_bytes);
  const std::string text = plan::explain(turning, device(), choice);
  EXPECT_NE(text.find(cuda::describe(preparation.kernel)), text.npos) << text;
}

TEST_P(CudaPlan, RefusesWithEveryKernelsReason) {
  const Problem problem = problem_of("q=20 k=20 dim=64 dtype=float8_e4m3");
  if (!plan::candidates(problem, device()).empty()) GTEST_SKIP() << "float8 is served";
  try {
    plan::choose(problem, device());
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(error.argument(), "device");
    for (const cuda::Family& family : cuda::families()) {
      if (family.pass != problem.pass) continue;
      EXPECT_NE(error.must_be().find(cuda::row_of(family.id).name), std::string::npos) << error.what();
    }
    EXPECT_NE(error.must_be().find("float8_e4m3"), std::string::npos) << error.what();
  }
}

TEST(CudaPlanOnHopper, TakesItsOwnForwardKernelWhereThatServes) {
  const CudaDevice& hopper = *cuda::known_device("h100");
  const auto kernel_of = [](const Problem& problem, const CudaDevice& device) {
    return std::string(plan::choose(problem, device).kernel->name);
  };
  const std::string own = "cuda.sm90.forward", portable = "cuda.sm80.forward";
  for (const char* line :
       {"q=500 k=500 heads=4/2 dim=64 causal dtype=bfloat16", "q=500 k=500 dim=128 dtype=float16",
        "q=500 k=700 dim=192/128 window=30,2 sink dtype=bfloat16",
        "packed_queries=300,20 packed_keys=300,20 batch=2 dim=256 causal dtype=bfloat16",
        "q=500 k=500 dim=64 softcap=3 dtype=bfloat16", "q=500 k=500 dim=128 alibi=h dtype=float16",
        "q=500 k=500 dim=64 scale=-1 dtype=bfloat16", "q=500 k=500 dim=64 prefix=9 dtype=bfloat16",
        "q=500 k=500 dim=64 documents=shared causal dtype=bfloat16", "q=500 k=500 dim=64 bias=hq dtype=bfloat16",
        "q=500 k=500 dim=64 block_mask=h block=64,64 dtype=bfloat16", "q=500 k=500 dim=64 mask=k dtype=bfloat16",
        "q=500 k=500 dim=64 softcap=3 alibi=h dtype=bfloat16", "q=500 k=500 dim=64 prefix=9 softcap=2 dtype=bfloat16",
        "q=500 k=512 page=16 key_lengths=500 dim=64 dtype=bfloat16",
        "q=500 k=768 page=256 key_lengths=500 dim=256 softcap=2 dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(problem_of(line), hopper), own) << line;
  }
  for (const char* line :
       {"q=500 k=500 dim=64 dtype=float32", "q=500 k=500 dim=32 dtype=bfloat16", "q=500 k=500 dim=62 dtype=bfloat16",
        "q=500 k=500 dim=64 dropout=0.1 dtype=bfloat16", "q=500 k=500 dim=64 dropout=0.1 softcap=2 dtype=bfloat16",
        "q=500 k=504 page=12 key_lengths=500 dim=64 dtype=bfloat16",
        "q=500 k=768 page=96 key_lengths=500 dim=128 dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(problem_of(line), hopper), portable) << line;
  }
  const Problem plain = problem_of("q=500 k=500 dim=64 dtype=bfloat16");
  EXPECT_EQ(kernel_of(plain, *cuda::known_device("b200")), portable) << "its instructions are Hopper's alone";
  CudaDevice old_driver = hopper;
  old_driver.tensor_maps = false;
  EXPECT_EQ(kernel_of(plain, old_driver), portable);
  Problem scattered = plain;
  scattered.regular_rows = false;
  EXPECT_EQ(kernel_of(scattered, hopper), portable);
}

TEST(CudaPlanOnHopper, SplitsKeysWhereTilesAreFew) {
  const auto splits_of = [](const char* line) {
    const plan::CudaChoice choice = plan::choose(problem_of(line), *cuda::known_device("h100"));
    EXPECT_STREQ(choice.kernel->name, "cuda.sm90.forward") << line;
    return choice.decision.max_splits;
  };
  EXPECT_EQ(splits_of("q=40 k=8192 heads=32 dim=128 causal dtype=bfloat16"), 4) << "132 multiprocessors, 32 tiles";
  EXPECT_EQ(splits_of("q=16 k=8192 heads=32/8 dim=128 causal dtype=bfloat16"), 16) << "8 tiles, shared by four heads";
  EXPECT_EQ(splits_of("q=100 k=8192 heads=2 dim=128 dtype=bfloat16"), 16) << "four blocks of 128 keys at least";
  EXPECT_EQ(splits_of("q=100 k=8192 page=128 key_lengths=8000 heads=2 dim=128 dtype=bfloat16"), 16) << "of pages too";
  EXPECT_EQ(splits_of("q=100 k=600 heads=2 dim=128 splits=2 dtype=bfloat16"), 2) << "as the caller wants";
  for (const char* line :
       {"q=40 k=8192 heads=32 dim=128 batch=4 dtype=bfloat16", "q=100 k=1000 heads=2 dim=128 dtype=bfloat16",
        "q=100 k=8192 heads=2 dim=128 batch_invariant dtype=bfloat16",
        "q=100 k=8192 heads=2 dim=128 sink dtype=bfloat16", "q=100 k=8192 heads=2 dim=128 splits=1 dtype=bfloat16",
        "q=100 k=8192 heads=2 dim=128 bias=hqk dtype=bfloat16",
        "q=100 k=8192 heads=2 dim=128 window=100,- dtype=bfloat16",
        "q=100 k=8192 heads=2 dim=128 causal top_left dtype=bfloat16"}) {
    EXPECT_EQ(splits_of(line), 1) << line;
  }
  Problem problem = problem_of("q=100 k=8192 heads=2 dim=128 splits=64 dtype=bfloat16");
  problem.batch = 1 << 25;
  EXPECT_EQ(plan::choose(problem, *cuda::known_device("h100")).decision.max_splits, 1) << "2^32 tiles";
}

TEST(CudaPlanOnHopper, HasAKernelForFewQueriesOfAGroup) {
  constexpr int kSharedTiles = 1024;
  const auto may_share_tiles = [](const char* line) {
    const plan::CudaChoice choice = plan::choose(problem_of(line), *cuda::known_device("h100"));
    EXPECT_STREQ(choice.kernel->name, "cuda.sm90.forward") << line;
    return (choice.decision.kernels[0].values[2] & kSharedTiles) != 0;
  };
  for (const char* line :
       {"q=16 k=500 heads=32/8 dim=128 dtype=bfloat16", "q=96 k=4096 heads=14/2 dim=64 batch=9 causal dtype=bfloat16",
        "q=16 k=500 heads=32/8 dim=128 softcap=3 dtype=bfloat16", "q=16 k=500 heads=32/8 dim=64 scale=-1 dtype=float16",
        "q=16 k=512 page=16 key_lengths=500 heads=64/1 dim=64 dtype=bfloat16"}) {
    EXPECT_TRUE(may_share_tiles(line)) << line;
  }
  for (const char* line :
       {"q=50 k=500 heads=8 dim=128 dtype=bfloat16", "q=4096 k=4096 heads=14/2 dim=64 causal dtype=bfloat16",
        "q=97 k=8192 heads=32/8 dim=128 dtype=bfloat16", "q=50 k=500 heads=65/1 dim=128 dtype=bfloat16",
        "q=50 k=500 heads=8/2 dim=128 alibi=h dtype=bfloat16", "q=50 k=500 heads=8/2 dim=128 mask=hk dtype=bfloat16",
        "q=50 k=500 heads=8/2 dim=128 prefix=9 dtype=bfloat16",
        "q=50 k=512 page=16 key_lengths=500 heads=8/2 dim=64 softcap=2 dtype=bfloat16"}) {
    EXPECT_FALSE(may_share_tiles(line)) << line;
  }
}

TEST(CudaPlanOnHopper, ReadsKeysOnceForMoreThanARowGroup) {
  const auto kernel_of = [](const char* line, const char* device) {
    return std::string(plan::choose(problem_of(line), *cuda::known_device(device)).kernel->name);
  };
  const std::string own = "cuda.sm90.forward", decode = "cuda.sm80.decode";
  for (const char* line :
       {"q=5 k=8192 heads=32/8 dim=128 causal dtype=bfloat16", "q=17 k=8192 heads=8 dim=64 dtype=float16",
        "q=1 k=8192 key_lengths=8000 heads=32/1 dim=128 dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(line, "h100"), own) << line;
    EXPECT_EQ(kernel_of(line, "a100"), decode) << line;
  }
  for (const char* line :
       {"q=4 k=8192 heads=32/8 dim=128 causal dtype=bfloat16", "q=5 k=8192 heads=32/8 dim=128 dtype=float32",
        "q=5 k=8192 heads=32/8 dim=128 batch_invariant dtype=bfloat16",
        "q=5 k=8192 heads=32/8 dim=128 alibi=h dtype=bfloat16", "q=5 k=8192 heads=32/8 dim=128 sink dtype=bfloat16",
        "q=1 k=8192 page=16 key_lengths=8000 heads=32/1 dim=128 dtype=bfloat16",
        "q=5 k=8192 heads=32/8 dim=128 window=100,- dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(line, "h100"), decode) << line;
  }
}

TEST(CudaPlanOnHopper, TakesItsOwnBackwardKernelWhereThatServes) {
  const CudaDevice& hopper = *cuda::known_device("h100");
  const auto kernel_of = [](const Problem& problem, const CudaDevice& device) {
    return std::string(plan::choose(problem, device).kernel->name);
  };
  const std::string own = "cuda.sm90.backward", portable = "cuda.sm80.backward", pass = "pass=backward ";
  for (const char* line : {"q=500 k=500 heads=4/2 dim=64 causal dtype=bfloat16", "q=500 k=500 dim=128 dtype=float16",
                           "q=500 k=700 dim=192/128 window=30,2 dtype=bfloat16", "q=90 k=80 dim=40 dtype=bfloat16",
                           "packed_queries=300,20 packed_keys=300,20 batch=2 dim=64 causal dtype=bfloat16",
                           "q=500 k=500 dim=64 sink dtype=bfloat16", "q=500 k=500 dim=64 softcap=3 dtype=bfloat16",
                           "q=500 k=500 dim=256 bias=hqk dropout=0.1 dtype=bfloat16",
                           "q=500 k=500 dim=128 documents=shared prefix=9 dtype=float16",
                           "q=500 k=500 dim=96 mask=k scale=-1 alibi=h dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(problem_of(pass + line), hopper), own) << line;
  }
  for (const char* line : {"q=500 k=500 dim=64 dtype=float32", "q=500 k=500 dim=64 output=float32 dtype=bfloat16",
                           "q=500 k=500 dim=32 dtype=bfloat16", "q=500 k=500 dim=62 dtype=bfloat16"}) {
    EXPECT_EQ(kernel_of(problem_of(pass + line), hopper), portable) << line;
  }
  const Problem plain = problem_of("pass=backward q=500 k=500 dim=64 dtype=bfloat16");
  EXPECT_EQ(kernel_of(plain, *cuda::known_device("b200")), portable) << "its instructions are Hopper's alone";
  Problem scattered = plain;
  scattered.regular_rows = false;
  EXPECT_EQ(kernel_of(scattered, hopper), portable);
}

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  for (const CudaDevice& device : cuda::known_devices()) names.emplace_back(device.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Known, CudaPlan, testing::ValuesIn(known_names()),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace strobe::cases
