// The judge by itself: it accepts a right result and notices every kind of wrong one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "cases/verify.hpp"
#include "executors.hpp"

namespace strobe::cases {
namespace {

class JudgeNotices : public testing::Test {
 protected:
  void run_case(const char* line) {
    instance_ = build(parse_case(line));
    judge_ = std::make_unique<Judge>(*instance_);
    ASSERT_EQ(run(*instance_, choose(*instance_, Isa::kSse4, executor()).decision, executor()), "");
    ASSERT_TRUE(judge_->judge().passed()) << judge_->judge().failures.front();
  }
  bool passes() { return judge_->judge().passed(); }
  static float* floats(const Tensor& tensor) { return static_cast<float*>(tensor.data); }

  std::unique_ptr<Instance> instance_;
  std::unique_ptr<Judge> judge_;
};

TEST_F(JudgeNotices, ASmallError) {
  run_case("q=20 k=30 dim=16 heads=2");
  floats(instance_->outputs.output)[5] += 1e-5f;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, AnErrorOfLse) {
  run_case("q=20 k=30 dim=16 heads=2");
  floats(instance_->outputs.lse)[39] += 3e-5f;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, NaN) {
  run_case("q=20 k=30 dim=16 heads=2");
  floats(instance_->outputs.output)[7] = NAN;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, ARowThatIsNotWritten) {
  run_case("q=20 k=0 dim=16");
  std::memset(floats(instance_->outputs.output) + 16, kPoison, 64);
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, AnOutputThatIsNearlyEqualWhereItMustBeEqual) {
  run_case("q=20 k=30 dim=64 inputs=integers");
  floats(instance_->outputs.output)[7] = std::nextafter(floats(instance_->outputs.output)[7], 9.0f);
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, AWrittenInput) {
  run_case("q=20 k=30 dim=16");
  floats(instance_->attention.value)[3] = 7.0f;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, WritingBetweenRows) {
  run_case("q=20 k=30 dim=16 layout=padded");
  floats(instance_->outputs.output)[17] = 0.0f;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, WritingBehindTheEnd) {
  run_case("q=20 k=30 dim=16");
  floats(instance_->outputs.output)[instance_->outputs.output.elements()] = 0.0f;
  EXPECT_FALSE(passes());
}

TEST_F(JudgeNotices, AWrongGradient) {
  run_case("pass=backward q=20 k=30 dim=16 sink bias=hk");
  for (const Tensor& gradient : {instance_->gradients.query, instance_->gradients.key, instance_->gradients.value,
                                 instance_->gradients.bias, instance_->gradients.sink}) {
    const float before = floats(gradient)[0];
    floats(gradient)[0] = before + 3e-4f;
    EXPECT_FALSE(passes());
    floats(gradient)[0] = before;
    EXPECT_TRUE(passes());
  }
}

TEST_F(JudgeNotices, AnAppendThatWritesElsewhere) {
  run_case("q=1 k=16 dim=16 cache_rows=2 key_lengths=5 append=2 batch=1");
  floats(instance_->attention.key)[0] = 1.0f;
  EXPECT_FALSE(passes());
}

}  // namespace
}  // namespace strobe::cases
