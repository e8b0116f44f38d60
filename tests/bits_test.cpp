// Results are the same to the bit: run twice, on any number of threads, in any order of chunks, and for a sequence in
// whatever batch it is.
#include <gtest/gtest.h>

#include <cstring>

#include "cases/run.hpp"
#include "cases/verify.hpp"
#include "cpu/cpu.hpp"
#include "executors.hpp"

namespace strobe::cases {
namespace {

using Bytes = std::vector<unsigned char>;

Bytes bytes_of(const Tensor& tensor) {
  Bytes bytes;
  const std::size_t element = size_of(tensor.dtype);
  for_each_element(tensor, [&](const auto*, std::int64_t offset) {
    const auto* from = static_cast<const unsigned char*>(tensor.data) + static_cast<std::size_t>(offset) * element;
    bytes.insert(bytes.end(), from, from + element);
  });
  return bytes;
}

Bytes results_of(const Instance& instance) {
  Bytes bytes;
  for (const Storage& result : instance.results) {
    const Bytes more = bytes_of(result.tensor());
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

Bytes run_on(Instance& instance, Isa isa, Executor& executor) {
  reset(instance);
  EXPECT_EQ(run(instance, choose(instance, isa, executor).decision, executor), "");
  return results_of(instance);
}

class SameBits : public testing::TestWithParam<const char*> {};

TEST_P(SameBits, WhoeverRunsTheChunks) {
  const auto instance = build(parse_case(GetParam()));
  for (Isa isa : instruction_sets()) {
    SCOPED_TRACE(name_of(isa));
    const auto one = make_thread_pool(1), two = make_thread_pool(2), three = make_thread_pool(3);
    ScrambledExecutor scrambled(4, 99);
    const Bytes expected = run_on(*instance, isa, *one);
    EXPECT_EQ(run_on(*instance, isa, *one), expected);
    EXPECT_EQ(run_on(*instance, isa, *two), expected);
    EXPECT_EQ(run_on(*instance, isa, *three), expected);
    for (int round = 0; round < 3; ++round) EXPECT_EQ(run_on(*instance, isa, scrambled), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, SameBits,
    testing::Values("q=300 k=333 heads=4/2 dim=64 causal batch=2", "q=200 k=400 heads=2 dim=64 dtype=bfloat16 batch=2",
                    "q=200 k=400 heads=2 dim=80 dtype=float16 window=70,- sink",
                    "q=1 k=5000 heads=8/2 dim=64 batch=2 key_lengths=5000,2100",
                    "q=2 k=5000 heads=4/2 dim=64 dtype=bfloat16 splits=4", "q=70 k=3000 heads=1 dim=64 splits=5",
                    "batch=3 packed_queries=100,1,33 packed_keys=100,3000,64 heads=4/2 dim=32 causal",
                    "pass=backward q=300 k=333 heads=4/2 dim=64 causal batch=2",
                    "pass=backward q=200 k=200 heads=4/1 dim=48 dtype=bfloat16 bias=hk sink",
                    "pass=backward q=200 k=200 heads=2 dim=48 batch=2 bias=1 dropout=0.5",
                    "pass=backward batch=3 packed_queries=150,0,77 packed_keys=150,30,77 heads=4/2 dim=64 bias=bq",
                    "pass=backward q=600 k=64 heads=1 dim=32 dtype=float16 bias=k",
                    "pass=backward q=40 k=1500 heads=2/1 dim=64 bias=q bias_type=float32 dtype=bfloat16"));

/// Sequence b of a tensor whose first axis is the batch.
Tensor sequence(Tensor tensor, std::int64_t b) {
  if (!tensor.given()) return tensor;
  tensor.data = static_cast<char*>(tensor.data) + b * tensor.strides[0] * std::int64_t(size_of(tensor.dtype));
  tensor.shape[0] = 1;
  return tensor;
}

/// Rows [first, first + count) of a packed tensor.
Tensor rows(Tensor tensor, std::int64_t first, std::int64_t count) {
  tensor.data = static_cast<char*>(tensor.data) + first * tensor.strides[0] * std::int64_t(size_of(tensor.dtype));
  tensor.shape[0] = count;
  return tensor;
}

class BatchInvariance : public testing::TestWithParam<const char*> {};

TEST_P(BatchInvariance, ASequenceHasTheSameBitsAlone) {
  const auto instance = build(parse_case(std::string(GetParam()) + " batch_invariant no_lse"));
  const Attention& all = instance->attention;
  for (Isa isa : instruction_sets()) {
    SCOPED_TRACE(name_of(isa));
    run_on(*instance, isa, executor());
    const bool packed = all.query_offsets.given();
    const auto* query_offsets = static_cast<const std::int32_t*>(all.query_offsets.data);
    const auto* key_offsets = static_cast<const std::int32_t*>(all.key_offsets.data);
    for (std::int64_t b = 0; b < instance->checked.problem.batch; ++b) {
      Attention alone = all;
      Tensor in_batch;
      std::int32_t query_ends[2] = {}, key_ends[2] = {};
      if (packed) {
        query_ends[1] = query_offsets[b + 1] - query_offsets[b];
        key_ends[1] = key_offsets[b + 1] - key_offsets[b];
        alone.query_offsets = Tensor::contiguous(query_ends, DataType::kInt32, {2});
        alone.key_offsets = Tensor::contiguous(key_ends, DataType::kInt32, {2});
        alone.query = rows(all.query, query_offsets[b], query_ends[1]);
        alone.key = rows(all.key, key_offsets[b], key_ends[1]);
        alone.value = rows(all.value, key_offsets[b], key_ends[1]);
        in_batch = rows(instance->outputs.output, query_offsets[b], query_ends[1]);
      } else {
        alone.query = sequence(all.query, b);
        if (!all.page_table.given()) {
          alone.key = sequence(all.key, b);
          alone.value = sequence(all.value, b);
        }
        alone.page_table = sequence(all.page_table, b);
        in_batch = sequence(instance->outputs.output, b);
      }
      alone.key_lengths = sequence(all.key_lengths, b);
      Storage output("output", in_batch, 0);
      const check::Checked checked =
          check::forward(alone, {.output = output.tensor(), .lse = {}}, check::Data::kRequired);
      CpuDevice device = cpu::this_machine();
      device.best = isa;
      device.dot_pays = true;
      device.threads = executor().concurrency();
      const Decision decision = plan::choose(checked.problem, device).decision;
      std::vector<unsigned char> workspace(decision.workspace_bytes() + 64);
      void* aligned = workspace.data();
      std::size_t room = workspace.size();
      std::align(64, decision.workspace_bytes(), aligned, room);
      cpu::forward(checked.problem, checked.buffers, decision, executor(), aligned);
      EXPECT_EQ(bytes_of(output.tensor()), bytes_of(in_batch)) << "sequence " << b;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BatchInvariance,
    testing::Values("batch=3 q=40 k=90 heads=4/2 dim=64 causal key_lengths=90,1,33",
                    "batch=3 q=1 k=6000 heads=4/2 dim=32 key_lengths=6000,100,2049",
                    "batch=2 q=1 k=6400 page=16 heads=4/1 dim=32 dtype=bfloat16 key_lengths=6000,4000",
                    "batch=2 q=20 k=9000 heads=1 dim=16 key_lengths=9000,5000",
                    "batch=3 packed_queries=1,60,7 packed_keys=300,60,70 heads=2/1 dim=32",
                    "batch=3 packed_queries=4,30,2 packed_keys=5000,3000,6000 heads=1 dim=16",
                    "batch=2 packed_queries=3,600 packed_keys=9000,20 heads=1 dim=16 dtype=bfloat16"));

}  // namespace
}  // namespace strobe::cases
