// What the GPU tests share: they skip where there is no GPU, and judge a case on every kernel that serves it.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cases/cuda.hpp"
#include "cases/verify.hpp"
#include "cuda/cuda.hpp"
#include "plan/plan.hpp"

namespace strobe::cases {

/// A test on the first GPU, with a stream of its own.
class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda::why_no_device();
    stream_.emplace(0);
  }
  cuda::Stream stream() const { return stream_->get(); }

  /// Runs the case on every kernel family that serves it and has `name` in its name. Returns how many did.
  int expect_case(const std::string& line, const char* name = "") {
    SCOPED_TRACE("strobe check --device cuda --case \"" + line + "\"");
    const auto instance = build(parse_case(line));
    const std::vector<plan::CudaChoice> choices = plan::candidates(instance->checked.problem, cuda::device(0));
    std::optional<Judge> judge;
    int served = 0;
    for (const plan::CudaChoice& choice : choices) {
      if (std::string_view(choice.kernel->name).find(name) == std::string_view::npos) continue;
      ++served;
      if (!judge) judge.emplace(*instance);
      reset(*instance);
      const std::string complaint = run_on_cuda(*instance, choice.decision, stream());
      EXPECT_EQ(complaint, "") << choice.kernel->name;
      for (const std::string& failure : judge->judge().failures)
        ADD_FAILURE() << choice.kernel->name << ": " << failure;
    }
    return served;
  }

  /// The same, skipping the test where no kernel serves the case yet, with the reason.
  void expect_served(const std::string& line) {
    if (expect_case(line) > 0) return;
    try {
      plan::choose(build(parse_case(line))->checked.problem, cuda::device(0));
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  /// Many small cases in one test; those that no kernel serves are counted.
  void expect_cases(const std::vector<std::string>& lines) {
    int unserved = 0;
    for (const std::string& line : lines) {
      unserved += expect_case(line) == 0;
      if (HasFatalFailure()) return;
    }
    if (unserved > 0) GTEST_SKIP() << unserved << " of " << lines.size() << " cases have no CUDA kernel";
  }

 private:
  std::optional<cuda::OwnStream> stream_;
};

/// The same with a parameter.
template <typename Parameter>
class OnGpuWith : public OnGpu, public testing::WithParamInterface<Parameter> {};

}  // namespace strobe::cases
