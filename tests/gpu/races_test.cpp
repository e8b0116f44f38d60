// Races between warps, blocks and kernels show as bits that differ now and then. So every kernel that promises the same
// bits runs a thousand times, alone and on several streams at once, while other streams load the GPU in ways that
// change from round to round, into results and workspaces that hold something else each time.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "cuda/cuda.hpp"
#include "gpu/gpu_test.hpp"
#include "sequence_alone.hpp"

namespace strobe::cases {
namespace {

int rounds() {
  const char* text = std::getenv("STROBE_RACE_ROUNDS");
  return text == nullptr ? 1000 : std::atoi(text);
}

/// A case on a stream and in memory of its own, run by one kernel family.
class Runner {
 public:
  Runner(Instance& instance, const cuda::CudaDecision& decision)
      : decision_(decision),
        on_gpu_(instance, stream_.get()),
        workspace_(0, std::max<std::size_t>(decision.workspace_bytes, 1)) {
    for (const Tensor& tensor :
         {on_gpu_.outputs.output, on_gpu_.outputs.lse, on_gpu_.gradients.query, on_gpu_.gradients.key,
          on_gpu_.gradients.value, on_gpu_.gradients.bias, on_gpu_.gradients.sink}) {
      if (tensor.given() && tensor.elements() > 0) results_.push_back(tensor);
    }
  }
  /// Leaves something else where results go and in the workspace.
  void spoil(unsigned char filling) {
    for (const Tensor& result : results_) cuda::fill(stream_.get(), result.data, filling, bytes_of_result(result));
    cuda::fill(stream_.get(), workspace_.data(), filling, workspace_.bytes());
  }
  void run() {
    cuda::run(on_gpu_.checked.problem, on_gpu_.checked.buffers, decision_, stream_.get(), workspace_.data());
  }
  /// Waits.
  void read(Bytes& bits) const {
    bits.clear();
    for (const Tensor& result : results_) {
      const std::size_t at = bits.size();
      bits.resize(at + bytes_of_result(result));
      cuda::copy_to_host(stream_.get(), bits.data() + at, result.data, bits.size() - at);
    }
  }
  void wait() const { cuda::synchronise(stream_.get()); }

 private:
  static std::size_t bytes_of_result(const Tensor& result) {  // which are contiguous in these cases
    return std::size_t(result.elements()) * size_of(result.dtype);
  }

  cuda::CudaDecision decision_;
  cuda::OwnStream stream_{0};
  CudaInstance on_gpu_;
  cuda::DeviceMemory workspace_;
  std::vector<Tensor> results_;
};

/// What goes on beside the calls that are looked at.
class Neighbours {
 public:
  Neighbours() : memory_(0, std::size_t(32) << 20) {
    for (const char* line : {"q=100 k=6000 heads=3 dim=64 dtype=bfloat16",              // few blocks that take long
                             "q=128 k=128 heads=16 dim=64 batch=8 dtype=bfloat16",      // many that do not
                             "q=1 k=3000 heads=8/2 dim=128 batch=4 dtype=bfloat16",     // much memory
                             "q=300 k=300 heads=8 dim=64 dtype=bfloat16 softcap=2"}) {  // full registers
      instances_.push_back(build(parse_case(line)));
      const auto choices = plan::candidates(instances_.back()->checked.problem, cuda::device(0));
      if (!choices.empty()) runners_.emplace_back(*instances_.back(), choices.front().decision);
    }
  }
  /// Puts something on other streams, or nothing, without waiting for it.
  void disturb(std::mt19937& random) {
    switch (random() % 4) {
      case 0:
        return;
      case 1:
        return cuda::fill(fills_.get(), memory_.data(), 1, memory_.bytes() >> random() % 8);
      default:
        for (Runner& runner : runners_) {
          if (random() % 2 == 0) runner.run();
        }
    }
  }
  /// So that what nobody reads does not pile up.
  void wait() const {
    for (const Runner& runner : runners_) runner.wait();
    cuda::synchronise(fills_.get());
  }

 private:
  std::vector<std::unique_ptr<Instance>> instances_;
  std::deque<Runner> runners_;
  cuda::OwnStream fills_{0};
  cuda::DeviceMemory memory_;
};

/// "byte 12 of 4096 and 3 more"
std::string difference(const Bytes& bits, const Bytes& expected) {
  std::size_t first = bits.size(), count = 0;
  for (std::size_t n = 0; n < bits.size(); ++n) {
    if (bits[n] == expected[n]) continue;
    first = std::min(first, n);
    ++count;
  }
  return "byte " + std::to_string(first) + " of " + std::to_string(bits.size()) + " and " + std::to_string(count - 1) +
         " more";
}

class GpuRaces : public OnGpuWith<const char*> {
 protected:
  void look_for_races(Instance& instance, const cuda::CudaDecision& decision) {
    constexpr std::size_t kMostAtOnce = 3;
    Neighbours neighbours;
    std::deque<Runner> runners;
    while (runners.size() < kMostAtOnce) runners.emplace_back(instance, decision);
    runners[0].spoil(kPoison);
    runners[0].run();
    Bytes expected, bits;
    runners[0].read(expected);
    std::mt19937 random(1);
    for (int round = 0; round < rounds(); ++round) {
      const std::size_t at_once = 1 + random() % kMostAtOnce;
      for (std::size_t n = 0; n < at_once; ++n) runners[n].spoil(static_cast<unsigned char>(random()));
      neighbours.disturb(random);
      for (std::size_t n = 0; n < at_once; ++n) {
        runners[n].run();
        if (random() % 4 == 0) runners[n].run();  // upon what the first call left in the workspace
      }
      neighbours.disturb(random);
      for (std::size_t n = 0; n < at_once; ++n) {
        runners[n].read(bits);
        ASSERT_EQ(bits.size(), expected.size());
        ASSERT_TRUE(bits == expected) << "round " << round << ", " << at_once
                                      << " at once: " << difference(bits, expected) << " differ";
      }
      if (round % 8 == 0) neighbours.wait();
    }
  }
};

TEST_P(GpuRaces, AThousandRunsUnderLoadHaveTheSameBits) {
  const auto instance = build(parse_case(GetParam()));
  const auto choices = plan::candidates(instance->checked.problem, cuda::device(0));
  if (choices.empty()) GTEST_SKIP() << "no CUDA kernel serves it";
  for (const plan::CudaChoice& choice : choices) {
    SCOPED_TRACE(choice.kernel->name);
    look_for_races(*instance, choice.decision);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Forward, GpuRaces,
    testing::Values("q=1100 k=700 heads=16/4 dim=128 dtype=bfloat16 causal",
                    "q=1000 k=1000 heads=24/24 dim=64 dtype=float16",
                    "q=600 k=700 heads=8/2 dim=256 batch=2 dtype=bfloat16 causal",
                    "packed_queries=500,1,130,300 packed_keys=500,900,64,300 batch=4 heads=8/2 dim=128 dtype=bfloat16 "
                    "causal",
                    "q=300 k=900 key_lengths=900,1,450 batch=3 heads=8/8 dim=64 dtype=bfloat16 window=200,0 sink",
                    "q=3 k=300 key_lengths=300,0,0,0,0,0,0,9,0,0,0,200 batch=12 heads=64/8 dim=64 dtype=bfloat16",
                    "q=3 k=300 key_lengths=0,0,0,0,0,300,0,0,0,0,0,0 batch=12 heads=64/8 dim=128 dtype=float16",
                    "q=200 k=640 page=16 batch=3 key_lengths=640,17,300 heads=8/2 dim=128 dtype=bfloat16 causal",
                    "q=200 k=640 page=128 batch=3 key_lengths=640,17,300 heads=8/2 dim=64 dtype=bfloat16",
                    "q=64 k=4000 heads=4/4 dim=64 dtype=bfloat16 splits=5",
                    "q=300 k=400 heads=4/4 dim=64 batch=2 dtype=bfloat16 softcap=5 alibi=h",
                    "q=300 k=400 heads=4/2 dim=128 dtype=bfloat16 bias=hqk documents=apart dropout=0.2",
                    "q=400 k=400 heads=4/4 dim=64 dtype=float16 block_mask=h block=64,64 causal",
                    "q=700 k=700 heads=16/4 dim=128 batch=2 dtype=bfloat16 causal documents=shared",
                    "q=500 k=900 heads=8/8 dim=64 batch=3 dtype=float16 documents=apart",
                    "packed_queries=300,1,90 packed_keys=500,64,300 batch=3 heads=8/2 dim=128 dtype=bfloat16 "
                    "documents=apart",
                    "q=400 k=900 heads=8/2 dim=128 dtype=bfloat16 causal prefix=300 window=100,-",
                    "q=600 k=600 heads=8/2 dim=128 dtype=bfloat16 softcap=30",
                    "q=600 k=640 heads=8/2 dim=128 dtype=bfloat16 mask=hqk causal",
                    "q=400 k=768 page=64 batch=2 key_lengths=768,100 heads=8/2 dim=128 dtype=bfloat16 softcap=9 "
                    "documents=apart",
                    "q=400 k=600 heads=8/2 dim=128 dtype=bfloat16 bias=hqk bias_type=bfloat16 causal",
                    "q=300 k=500 heads=8/2 dim=64 dtype=float32 causal",
                    "q=300 k=400 heads=8/2 dim=128 dtype=float8_e4m3"));

INSTANTIATE_TEST_SUITE_P(
    Decode, GpuRaces,
    testing::Values("q=1 k=8000 heads=16/2 dim=128 batch=3 dtype=bfloat16",
                    "q=1 k=5000 heads=32/8 dim=64 batch=9 dtype=float16 key_lengths=5000,1,64,300,2,4999,1000,17,0",
                    "q=2 k=2048 page=16 batch=4 key_lengths=2048,3,700,1025 heads=8/2 dim=128 dtype=bfloat16 causal",
                    "q=1 k=6000 heads=4/1 dim=64 batch=2 key_lengths=6000,3001 dtype=float32 batch_invariant",
                    "q=1 k=3000 heads=8/8 dim=128 batch=2 dtype=float8_e5m2",
                    "q=2 k=96 page=16 batch=2 key_lengths=90,1 heads=4/2 dim=64 append=2 rotary=32 dtype=bfloat16"));

INSTANTIATE_TEST_SUITE_P(
    Backward, GpuRaces,
    testing::Values(
        "pass=backward q=700 k=700 heads=16/16 dim=64 dtype=bfloat16 causal",
        "pass=backward q=600 k=900 heads=8/2 dim=128 dtype=float16",
        "pass=backward q=500 k=500 heads=16/4 dim=128 dtype=bfloat16 causal",
        "pass=backward q=300 k=400 heads=8/8 dim=256 dtype=bfloat16 causal",
        "pass=backward packed_queries=300,0,177 packed_keys=150,30,600 batch=3 heads=8/4 dim=128 "
        "dtype=bfloat16 causal",
        "pass=backward q=400 k=700 heads=4/4 dim=64 batch=2 dtype=bfloat16 window=100,50 sink grad_lse",
        "pass=backward q=200 k=300 heads=4/2 dim=64 dtype=bfloat16 bias=hk softcap=3 dropout=0.2",
        "pass=backward q=300 k=300 heads=4/4 dim=128 dtype=float16 block_mask=1 block=64,64 documents=apart",
        "pass=backward q=900 k=900 heads=8/4 dim=128 dtype=bfloat16 documents=apart causal",
        "pass=backward q=700 k=900 heads=8/8 dim=64 dtype=bfloat16 documents=apart",
        "pass=backward q=600 k=700 heads=4/2 dim=256 dtype=bfloat16 block_mask=h block=64,64",
        "pass=backward q=600 k=640 heads=8/2 dim=128 dtype=bfloat16 bias=hqk bias_type=bfloat16 grads=qkv",
        "pass=backward q=600 k=640 heads=8/2 dim=64 dtype=bfloat16 mask=hqk causal",
        "pass=backward q=500 k=600 heads=8/2 dim=64 dtype=float16 dropout=0.2 prefix=90 causal",
        "pass=backward q=300 k=400 heads=4/2 dim=64 dtype=float32 causal"));

}  // namespace
}  // namespace strobe::cases
