// The smallest kernel there is: element i of a stretch of memory becomes first + i * STROBE_STEP. Tests and
// `strobe info` launch it to see that compiling, loading and launching work, whatever attention kernels do.

static_assert(STROBE_STEP != 0, "STROBE_STEP must not be 0");

struct SelfTestParams {
  int* memory;  // [count]
  long long count;
  int first;
};

extern "C" __global__ void __launch_bounds__(128) strobe_selftest(const __grid_constant__ SelfTestParams params) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < params.count) params.memory[i] = params.first + static_cast<int>(i) * STROBE_STEP;
}
