// Judges the results of a case against the float64 reference by docs/options.md's rule.
#pragma once

#include <string>
#include <vector>

#include "cases/instance.hpp"
#include "cases/run.hpp"
#include "reference/reference.hpp"

namespace strobe::cases {

/// One result tensor's largest error and what it may be.
struct Measure {
  std::string name;  // "output", "lse", "grad_query", ...
  double error = 0, allowed = 0;
};

struct Verdict {
  std::vector<Measure> measures;
  std::vector<std::string> failures;  // sentences; empty: passed
  bool passed() const { return failures.empty(); }
};

/// Judges one instance after runs of any kernel: works the reference out once.
class Judge {
 public:
  explicit Judge(Instance& instance);
  /// Call after run(); the instance's results are as the kernel left them.
  Verdict judge();

 private:
  void work_out_forward();
  void judge_forward(Verdict& verdict) const;
  void judge_backward(Verdict& verdict) const;
  void judge_surroundings(Verdict& verdict) const;
  void judge_cache(Verdict& verdict) const;

  Instance& instance_;
  reference::ForwardResult exact_forward_, standard_forward_;
  reference::BackwardResult exact_backward_, standard_backward_;
  reference::AppendResult appended_;
};

/// Builds, runs and judges a case on one instruction set. Exceptions become failures.
Verdict check_case(const Case& description, Isa isa, Executor& executor);
/// The same on every instruction set of this machine; failures name the set and say how to repeat them.
std::vector<std::string> check_case_everywhere(const Case& description, Executor& executor);

}  // namespace strobe::cases
