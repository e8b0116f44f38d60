// Calls of the public API on a GPU: plans and one-shot calls, with and without a workspace, from several threads and on
// several streams, captured into graphs; that running a plan allocates nothing; and what is refused.
#include <cstring>
#include <thread>

#include "allocations.hpp"
#include "gpu/gpu_test.hpp"
#include "gpu/graph.hpp"
#include "sequence_alone.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

constexpr const char* kCases[] = {
    "q=100 k=200 heads=4/2 dim=64 batch=2 dtype=bfloat16 causal",
    "q=1 k=5000 heads=8/2 dim=128 batch=2 dtype=float16 key_lengths=5000,77",
    "batch=3 packed_queries=100,1,33 packed_keys=100,300,64 heads=4/2 dim=32 dtype=bfloat16",
    "q=2 k=640 page=16 batch=2 key_lengths=600,5 heads=4/2 dim=64 dtype=bfloat16 softcap=5",
    "pass=backward q=200 k=300 heads=4/2 dim=64 batch=2 dtype=bfloat16 causal sink",
    "pass=backward q=130 k=90 heads=2/1 dim=128 dtype=float16 bias=hk",
};

bool served(const Instance& instance) { return !plan::candidates(instance.checked.problem, cuda::device(0)).empty(); }

void expect_passed(Instance& instance) {
  for (const std::string& failure : Judge(instance).judge().failures) ADD_FAILURE() << failure;
}

Plan plan_of(const CudaInstance& on_gpu) {
  return on_gpu.checked.problem.pass == Pass::kForward
             ? plan_forward(on_gpu.attention, on_gpu.outputs, on_gpu.execution)
             : plan_backward(on_gpu.attention, on_gpu.upstream, on_gpu.gradients, on_gpu.execution);
}

void run(const Plan& plan, const CudaInstance& on_gpu, const Execution& execution) {
  if (on_gpu.checked.problem.pass == Pass::kForward) {
    plan.run(on_gpu.attention, on_gpu.outputs, execution);
  } else {
    plan.run(on_gpu.attention, on_gpu.upstream, on_gpu.gradients, execution);
  }
}

class GpuCall : public OnGpuWith<const char*> {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (IsSkipped()) return;
    if (!served(*build(parse_case(GetParam())))) GTEST_SKIP() << "no CUDA kernel serves it";
  }
};

TEST_P(GpuCall, OneShotAgreesWithTheReference) {
  const auto instance = build(parse_case(GetParam()));
  CudaInstance on_gpu(*instance, stream());
  on_gpu.call();
  on_gpu.copies.download();
  expect_passed(*instance);
}

TEST_P(GpuCall, OnTheDefaultStream) {
  const auto instance = build(parse_case(GetParam()));
  CudaInstance on_gpu(*instance, {});
  on_gpu.call();
  on_gpu.copies.download();
  expect_passed(*instance);
}

TEST_P(GpuCall, APlanRunsWithoutAllocatingWithAndWithoutAWorkspace) {
  const auto instance = build(parse_case(GetParam()));
  CudaInstance on_gpu(*instance, stream());
  const Plan plan = plan_of(on_gpu);
  EXPECT_EQ(std::string(plan.kernel()).rfind("cuda.", 0), 0u);
  EXPECT_NE(plan.explain().find(plan.kernel()), std::string::npos);
  const cuda::DeviceMemory workspace(0, plan.workspace_bytes() + 1);
  Execution given = on_gpu.execution;
  given.workspace = workspace.data();
  given.workspace_bytes = plan.workspace_bytes();
  run(plan, on_gpu, on_gpu.execution);  // the stream's pool is made
  for (const Execution& execution : {given, on_gpu.execution}) {
    cuda::synchronise(stream());
    reset(*instance);
    on_gpu.copies.upload();
    const std::size_t before = allocations();
    run(plan, on_gpu, execution);
    EXPECT_EQ(allocations() - before, 0u);
    on_gpu.copies.download();
    expect_passed(*instance);
  }
}

TEST_P(GpuCall, OnSeveralStreamsAtOnce) {
  constexpr int kStreams = 4;
  std::vector<std::unique_ptr<Instance>> instances;
  std::deque<cuda::OwnStream> streams;
  std::deque<CudaInstance> on_gpu;
  for (int n = 0; n < kStreams; ++n) {
    instances.push_back(build(parse_case(GetParam() + std::string(" seed=") + std::to_string(n + 1))));
    on_gpu.emplace_back(*instances.back(), streams.emplace_back(0).get());
  }
  for (int round = 0; round < 10; ++round) {
    for (CudaInstance& each : on_gpu) each.call();
  }
  for (int n = 0; n < kStreams; ++n) {
    on_gpu[n].copies.download();
    expect_passed(*instances[n]);
  }
}

using GpuThreads = OnGpu;

TEST_F(GpuThreads, EachWithItsStreamAgreeWithTheReference) {
  constexpr int kThreads = int(std::size(kCases)), kRounds = 20;
  std::vector<std::unique_ptr<Instance>> instances;
  std::vector<std::thread> threads;
  std::vector<std::string> errors(kThreads);
  for (int n = 0; n < kThreads; ++n) instances.push_back(build(parse_case(kCases[n])));
  for (int n = 0; n < kThreads; ++n) {
    threads.emplace_back([&, n] {
      try {
        if (!served(*instances[n])) return;
        const cuda::OwnStream own(0);
        CudaInstance on_gpu(*instances[n], own.get());
        for (int round = 0; round < kRounds; ++round) on_gpu.call();
        on_gpu.copies.download();
      } catch (const std::exception& error) {
        errors[n] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int n = 0; n < kThreads; ++n) {
    EXPECT_EQ(errors[n], "");
    if (served(*instances[n])) expect_passed(*instances[n]);
  }
}

TEST_F(GpuThreads, OneForEachDeviceHaveTheSameBits) {
  const int devices = cuda_device_count();
  if (devices < 2) GTEST_SKIP() << "one device";
  for (const char* line : kCases) {
    SCOPED_TRACE(line);
    std::vector<std::unique_ptr<Instance>> instances;
    std::vector<std::thread> threads;
    std::vector<std::string> errors(std::size_t(devices), "");
    for (int n = 0; n < devices; ++n) instances.push_back(build(parse_case(line)));
    for (int n = 0; n < devices; ++n) {
      threads.emplace_back([&, n] {
        try {
          const cuda::OwnStream own(n);
          CudaInstance on_gpu(*instances[std::size_t(n)], own.get());
          for (int round = 0; round < 20; ++round) on_gpu.call();
          on_gpu.copies.download();
        } catch (const std::exception& error) {
          errors[std::size_t(n)] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int n = 0; n < devices; ++n) {
      EXPECT_EQ(errors[std::size_t(n)], "") << "device " << n;
      // Devices of one kind plan alike.
      if (std::string(cuda::device(n).name) != cuda::device(0).name) continue;
      EXPECT_EQ(results_of(*instances[std::size_t(n)]), results_of(*instances[0])) << "device " << n;
    }
    expect_passed(*instances[0]);
  }
}

/// Gives `to` the contents of another instance of the same sizes.
void take_contents(std::deque<Storage>& to, std::deque<Storage>& from) {
  for (std::size_t n = 0; n < to.size(); ++n) {
    const auto tail = [](Storage& storage) {
      const auto* data = static_cast<unsigned char*>(storage.tensor().data);
      return storage.bytes().subspan(std::size_t(data - storage.bytes().data()));
    };
    const auto target = tail(to[n]), source = tail(from[n]);
    std::memcpy(target.data(), source.data(), std::min(target.size(), source.size()));
  }
}

TEST_P(GpuCall, CapturedIntoAGraphAndReplayed) {
  const auto instance = build(parse_case(GetParam()));
  CudaInstance on_gpu(*instance, stream());
  const Plan plan = plan_of(on_gpu);  // compiles and loads
  const gpu::Graph graph(stream(), [&] { run(plan, on_gpu, on_gpu.execution); });
  for (int round = 0; round < 3; ++round) {
    reset(*instance);
    on_gpu.copies.upload();
    graph.launch(stream());
    graph.launch(stream());
    on_gpu.copies.download();
    expect_passed(*instance);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuCall, testing::ValuesIn(kCases));

/// A graph of one case, replayed with the contents of others of the same sizes.
struct Replay {
  const char *captured, *lengths[3];
};

class GpuReplay : public OnGpuWith<Replay> {};

TEST_P(GpuReplay, WithOtherLengthsInTheSameBuffers) {
  const Replay& replay = GetParam();
  const auto line = [&](const char* lengths) { return parse_case(std::string(replay.captured) + " " + lengths); };
  const auto captured = build(line(replay.lengths[0]));
  if (!served(*captured)) GTEST_SKIP() << "no CUDA kernel serves it";
  CudaInstance on_gpu(*captured, stream());
  const Plan plan = plan_of(on_gpu);
  const gpu::Graph graph(stream(), [&] { run(plan, on_gpu, on_gpu.execution); });
  for (const char* lengths : replay.lengths) {
    SCOPED_TRACE(lengths);
    const auto other = build(line(lengths));
    take_contents(captured->inputs, other->inputs);
    take_contents(captured->results, other->results);
    on_gpu.copies.upload();
    graph.launch(stream());
    on_gpu.copies.download();
    take_contents(other->results, captured->results);
    for (const std::string& failure : Judge(*other).judge().failures) ADD_FAILURE() << failure;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GpuReplay,
    testing::Values(
        Replay{"q=1 k=2048 batch=3 heads=8/2 dim=64 dtype=bfloat16",
               {"key_lengths=3,1,2", "key_lengths=2048,2047,0", "key_lengths=100,1025,64"}},
        Replay{"q=40 k=300 batch=2 heads=4/2 dim=64 dtype=float16 causal",
               {"key_lengths=300,300 query_lengths=40,40", "key_lengths=5,299 query_lengths=1,40",
                "key_lengths=0,64 query_lengths=40,0"}},
        Replay{"q=1 k=640 page=16 batch=2 heads=8/1 dim=128 dtype=bfloat16",
               {"key_lengths=640,1", "key_lengths=17,16", "key_lengths=300,639"}},
        Replay{"batch=3 heads=4/2 dim=64 dtype=bfloat16 causal",
               {"packed_queries=50,50,50 packed_keys=100,100,100", "packed_queries=1,149,0 packed_keys=298,1,1",
                "packed_queries=0,10,140 packed_keys=0,150,150"}},
        Replay{"q=400 k=500 batch=2 heads=4/2 dim=128 dtype=bfloat16 causal",
               {"key_lengths=500,500", "key_lengths=1,400", "key_lengths=129,0"}},
        Replay{"q=300 k=300 batch=2 heads=2/1 dim=256 dtype=bfloat16 window=100,0",
               {"key_lengths=300,300", "key_lengths=299,7", "key_lengths=64,300"}},
        Replay{"q=200 k=400 page=16 batch=2 heads=4/2 dim=128 dtype=float16 causal",
               {"key_lengths=400,200", "key_lengths=17,399", "key_lengths=1,0"}},
        Replay{"pass=backward batch=3 heads=4/2 dim=128 dtype=bfloat16 causal",
               {"packed_queries=100,100,100 packed_keys=200,200,200", "packed_queries=1,299,0 packed_keys=598,1,1",
                "packed_queries=0,10,290 packed_keys=0,300,300"}},
        Replay{"pass=backward q=200 k=300 batch=2 heads=4/4 dim=64 dtype=bfloat16",
               {"key_lengths=300,300 query_lengths=200,200", "key_lengths=5,299 query_lengths=1,200",
                "key_lengths=0,64 query_lengths=200,0"}}));

using GpuRefusal = OnGpu;

TEST_F(GpuRefusal, OfWorkspacesAndDevicesThatDoNotFitThePlan) {
  const auto instance = build(parse_case("q=40 k=90 dim=64 dtype=bfloat16"));
  CudaInstance on_gpu(*instance, stream());
  if (!served(*instance)) GTEST_SKIP() << "no CUDA kernel serves it";
  const Plan plan = plan_forward(on_gpu.attention, on_gpu.outputs, on_gpu.execution);
  EXPECT_THROW(plan.run(instance->attention, instance->outputs), Error) << "on the CPU";
  Execution elsewhere = on_gpu.execution;
  elsewhere.device.index = cuda_device_count();
  EXPECT_THROW(plan.run(on_gpu.attention, on_gpu.outputs, elsewhere), Error);
}

TEST_F(GpuRefusal, SaysWhatHasNoKernel) {
  const auto instance = build(parse_case("q=40 k=90 dim=64 dtype=float8_e4m3"));
  const CudaInstance on_gpu(*instance, stream());
  if (served(*instance)) GTEST_SKIP() << "a kernel serves it";
  try {
    forward(on_gpu.attention, on_gpu.outputs, on_gpu.execution);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("float8_e4m3"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace strobe::cases
