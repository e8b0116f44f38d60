// NVRTC, NVIDIA's run-time compiler, loaded when a kernel is first compiled. It comes with the CUDA toolkit, with
// PyTorch's and CuPy's wheels, or alone: pip install nvidia-cuda-nvrtc.
#pragma once

#include <string>
#include <vector>

#include "cuda/jit/recipe.hpp"

namespace strobe::cuda {

class Nvrtc {
 public:
  /// Tries the candidates in order; the first that loads is taken, if its version is not above `newest_major`. Never
  /// throws.
  static Nvrtc load(const std::vector<std::string>& candidates, int newest_major = kAnyVersion);
  static constexpr int kAnyVersion = 1000;

  bool usable() const { return version_ > 0; }
  /// Why it is not usable: one sentence that lists the places.
  const std::string& missing() const { return missing_; }
  /// 13050 for 13.5.
  int version() const { return version_; }
  /// "13.5"
  std::string version_text() const;
  const std::string& path() const { return path_; }

  /// What to compile for so that a device of `architecture` runs it: "sm_90", or "compute_120" (PTX, which the driver
  /// finishes) where this NVRTC does not know the architecture. `suffix` as in the manifest.
  std::string target_for(int architecture, const std::string& suffix) const;

  /// A cubin for a target "sm_90", PTX for "compute_90". `log` gets the compiler's messages; `extra` further options.
  /// @throws Error (kInternal) with the log if it does not compile.
  std::vector<char> compile(const Recipe& recipe, const std::string& target, const std::string& description,
                            std::string* log = nullptr, const std::vector<std::string>& extra = {}) const;

 private:
  using Program = struct NvrtcProgram*;
  using Result = int;

  Result (*get_version)(int*, int*) = nullptr;
  const char* (*error_text)(Result) = nullptr;
  Result (*create)(Program*, const char*, const char*, int, const char* const*, const char* const*) = nullptr;
  Result (*destroy)(Program*) = nullptr;
  Result (*compile_program)(Program, int, const char* const*) = nullptr;
  Result (*log_size)(Program, std::size_t*) = nullptr;
  Result (*get_log)(Program, char*) = nullptr;
  Result (*cubin_size)(Program, std::size_t*) = nullptr;
  Result (*get_cubin)(Program, char*) = nullptr;
  Result (*ptx_size)(Program, std::size_t*) = nullptr;
  Result (*get_ptx)(Program, char*) = nullptr;
  Result (*architecture_count)(int*) = nullptr;
  Result (*get_architectures)(int*) = nullptr;

  const char* resolve(void* library);

  int version_ = 0;
  std::string missing_, path_;
  std::vector<int> architectures_;
};

/// Where NVRTC is looked for, in order. STROBE_NVRTC alone, where it is set; otherwise libraries that the process or
/// the system's search path has, CUDA's folders, and the folders of Python packages near to this process.
std::vector<std::string> nvrtc_candidates();

/// An NVRTC for this process, loaded on first use. A driver of CUDA 12 does not run what NVRTC 13 compiles, so callers
/// with a driver give its major version.
const Nvrtc& nvrtc(int newest_major = Nvrtc::kAnyVersion);

}  // namespace strobe::cuda
