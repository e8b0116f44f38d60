// Results are the same to the bit: run twice, on any number of threads, in any order of chunks, and for a sequence in
// whatever batch it is.
#include <gtest/gtest.h>

#include "cases/run.hpp"
#include "cases/verify.hpp"
#include "cpu/cpu.hpp"
#include "executors.hpp"
#include "sequence_alone.hpp"

namespace strobe::cases {
namespace {

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

INSTANTIATE_TEST_SUITE_P(Cases, SameBits, testing::ValuesIn(kSameBitsCases));

class BatchInvariance : public testing::TestWithParam<const char*> {};

TEST_P(BatchInvariance, ASequenceHasTheSameBitsAlone) {
  const auto instance = build(parse_case(std::string(GetParam()) + " batch_invariant no_lse"));
  for (Isa isa : instruction_sets()) {
    SCOPED_TRACE(name_of(isa));
    run_on(*instance, isa, executor());
    for (std::int64_t b = 0; b < instance->checked.problem.batch; ++b) {
      const SequenceAlone alone(*instance, b);
      Storage output("output", alone.in_batch, 0);
      const check::Checked checked =
          check::forward(alone.attention, {.output = output.tensor(), .lse = {}}, check::Data::kRequired);
      CpuDevice device = cpu::this_machine();
      device.best = isa;
      device.dot_pays = device.short_splits_pay = true;
      device.threads = executor().concurrency();
      const Decision decision = plan::choose(checked.problem, device).decision;
      std::vector<unsigned char> workspace(decision.workspace_bytes() + 64);
      void* aligned = workspace.data();
      std::size_t room = workspace.size();
      std::align(64, decision.workspace_bytes(), aligned, room);
      cpu::forward(checked.problem, checked.buffers, decision, executor(), aligned);
      EXPECT_EQ(bytes_of(output.tensor()), bytes_of(alone.in_batch)) << "sequence " << b;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, BatchInvariance, testing::ValuesIn(kInvarianceCases));

}  // namespace
}  // namespace strobe::cases
