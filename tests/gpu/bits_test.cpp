// Results on a GPU are the same to the bit: twice, and for a sequence in whatever batch it is.
#include "gpu/gpu_test.hpp"
#include "sequence_alone.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

class GpuSameBits : public OnGpuWith<const char*> {};

TEST_P(GpuSameBits, EveryTime) {
  const auto instance = build(parse_case(GetParam()));
  const auto choices = plan::candidates(instance->checked.problem, cuda::device(0));
  if (choices.empty()) GTEST_SKIP() << "no CUDA kernel serves it";
  for (const plan::CudaChoice& choice : choices) {
    SCOPED_TRACE(choice.kernel->name);
    Bytes first;
    for (int round = 0; round < 5; ++round) {
      reset(*instance);
      EXPECT_EQ(run_on_cuda(*instance, choice.decision, stream()), "");
      const Bytes bits = results_of(*instance);
      if (round == 0) first = bits;
      EXPECT_EQ(bits, first);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuSameBits, testing::ValuesIn(kSameBitsCases));
INSTANTIATE_TEST_SUITE_P(Larger, GpuSameBits,
                         testing::Values("pass=backward q=2048 k=2048 heads=8/2 dim=128 dtype=bfloat16 causal batch=2",
                                         "pass=backward q=3000 k=3000 heads=8/8 dim=64 dtype=bfloat16 batch=2",
                                         "pass=backward q=1000 k=3000 heads=4/1 dim=64 dtype=float16 sink bias=hk",
                                         "q=1 k=20000 heads=32/8 dim=128 dtype=bfloat16 batch=2"));

class GpuBatchInvariance : public OnGpuWith<const char*> {};

TEST_P(GpuBatchInvariance, ASequenceHasTheSameBitsAlone) {
  for (const char* type : {"", " dtype=float16", " dtype=bfloat16"}) {
    const auto instance = build(parse_case(GetParam() + std::string(type) + " batch_invariant no_lse"));
    if (plan::candidates(instance->checked.problem, cuda::device(0)).empty())
      GTEST_SKIP() << "no CUDA kernel serves it";
    CudaInstance batch(*instance, stream());
    batch.call();
    batch.copies.download();
    for (std::int64_t b = 0; b < instance->checked.problem.batch; ++b) {
      SequenceAlone alone(*instance, b);
      Storage output("output", alone.in_batch, 0);
      ForwardOutputs outputs{.output = output.tensor(), .lse = {}};
      gpu::Copies copies(stream());
      for (Storage& input : instance->inputs) copies.add(input.bytes().data(), input.bytes().size());
      copies.add(output.bytes().data(), output.bytes().size());
      copies.add(alone.query_ends, sizeof alone.query_ends);
      copies.add(alone.key_ends, sizeof alone.key_ends);
      copies.move(alone.attention);
      copies.move(outputs.output);
      copies.upload();
      forward(alone.attention, outputs, batch.execution);
      copies.download();
      EXPECT_EQ(bytes_of(output.tensor()), bytes_of(alone.in_batch)) << "sequence " << b;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuBatchInvariance, testing::ValuesIn(kInvarianceCases));
// Tiles of every kernel, and lengths that alone would be split otherwise.
INSTANTIATE_TEST_SUITE_P(Larger, GpuBatchInvariance,
                         testing::Values("batch=5 q=300 k=700 heads=8/2 dim=128 causal key_lengths=700,1,333,500,128",
                                         "batch=3 packed_queries=500,60,129 packed_keys=900,60,70 heads=4/2 dim=64",
                                         "batch=2 q=200 k=300 heads=4/4 dim=256 window=100,0",
                                         "batch=6 q=1 k=3000 heads=16/4 dim=128 key_lengths=3000,1,64,2,2999,1000",
                                         "batch=3 q=3 k=6400 page=64 heads=8/2 dim=128 causal key_lengths=6000,40,3"));

}  // namespace
}  // namespace strobe::cases
