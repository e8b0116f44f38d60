// Compiles variants of the manifest for given architectures, with NVRTC or nvcc, several at a time, and remembers the
// results in a folder: what the build embeds and what scripts/check_kernels judges.
#pragma once

#include <string>
#include <vector>

#include "cuda/kernel_key.hpp"

namespace strobe::kernels {

/// One variant for one architecture.
struct Job {
  const cuda::KernelVariant* variant;
  int architecture;
};
/// Every variant of the manifest for those of the architectures that it is meant for. `filter`: only variants whose
/// description contains it.
std::vector<Job> jobs_for(const std::vector<int>& architectures, const std::string& filter = "");
/// Of these jobs one for each variant, architecture after architecture.
std::vector<Job> one_for_each_variant(const std::vector<Job>& jobs);

/// What ptxas says about a kernel.
struct Usage {
  int registers = 0, stack_bytes = 0, spill_bytes = 0, shared_bytes = 0;  // shared: static only
  int milliseconds = 0;                                                   // that compiling took, when it was done
};
/// Reads the messages of `ptxas -v`; helper functions that were not inlined count too.
Usage usage_in(const std::string& messages);

struct Result {
  bool compiled = false;
  Usage usage;
  std::vector<char> cubin;
};

/// The cubin as a compressed fat binary, which the driver takes as well: a quarter of the size. Where the toolkit next
/// to nvcc cannot do that (12.8 and later can), the cubin as it is.
std::vector<char> compressed(const std::vector<char>& cubin, int architecture, const std::string& nvcc);

class Compiler {
 public:
  /// nvcc at this path; "" is NVRTC.
  /// @throws strobe::Error if it does not run.
  explicit Compiler(std::string nvcc);
  std::string name() const;  // "nvcc 13.0"

  /// Results in the order of the jobs, `processes` compiling at once. What fails is reported on stderr. `folder` keeps
  /// results by the hash of all that went into them: what is there is not compiled again.
  std::vector<Result> compile(const std::vector<Job>& jobs, int processes, const std::string& folder) const;

 private:
  void compile_into(const Job& job, const std::string& folder) const;
  std::string hash(const Job& job) const;

  std::string nvcc_, version_;
};

}  // namespace strobe::kernels
