// A program with kernels built in, linked by built_in.cmake: with STROBE_JIT=off it launches one that is built in over
// the fake driver, and is told about one that is not.
#include <cstdio>
#include <string>

#include "cuda/jit/built_in.hpp"
#include "cuda/launch.hpp"
#include "strobe/types.hpp"

int main() {
  using namespace strobe;
  using namespace strobe::cuda;
  if (built_in_kernels().size() != 1 || std::string(built_in_architectures()) != "90") return 1;
  struct {
    int* memory = nullptr;
    long long count = 0;
    int first = 0;
  } params;
  Launcher launcher({});
  launcher.launch({KernelId::kSelfTest, {1}}, {}, 128, 0, &params);
  try {
    launcher.launch({KernelId::kSelfTest, {2}}, {}, 128, 0, &params);
  } catch (const Error& error) {
    std::puts(error.what());
    return std::string(error.what()).find("built in for: 90") != std::string::npos ? 0 : 2;
  }
  return 3;
}
