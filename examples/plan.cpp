// What an engine does: plan a problem once, keep one workspace, and run on the engine's own threads. Nothing is
// allocated in the loop.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "strobe/strobe.hpp"

namespace {

/// The simplest executor there is: two threads for each call that is worth it. An engine hands out the chunks to
/// threads that it keeps.
class TwoThreads final : public strobe::Executor {
 public:
  int concurrency() const override { return 2; }

  void parallel_for(std::int64_t chunks, double nanoseconds_per_chunk, Body body, void* context) override {
    constexpr double kWorthAThread = 50e3;
    std::atomic<std::int64_t> next{0};
    const auto work = [&](int worker) {
      for (std::int64_t chunk = next++; chunk < chunks; chunk = next++) body(context, chunk, worker);
    };
    if (double(chunks) * nanoseconds_per_chunk < kWorthAThread) return work(0);
    std::thread helper(work, 1);
    work(0);
    helper.join();
  }
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

int main() {
  using strobe::DataType, strobe::Tensor;
  constexpr std::int64_t kLength = 512, kHeads = 4, kDim = 64, kElements = kLength * kHeads * kDim;
  std::vector<float> q(kElements, 0.5f), k(kElements, 0.25f), v(kElements), o(kElements);

  strobe::Attention attention;
  attention.query = Tensor::contiguous(nullptr, DataType::kFloat32, {1, kLength, kHeads, kDim});
  attention.key = attention.value = attention.query;
  attention.window_left = 128;
  attention.window_right = 0;
  strobe::ForwardOutputs outputs{.output = attention.query, .lse = {}};

  // Planning looks at shapes, types and options; the data come later.
  TwoThreads executor;
  const strobe::Plan plan = strobe::plan_forward(attention, outputs, {.executor = &executor});
  std::printf("%s", plan.explain().c_str());
  const std::size_t bytes = (plan.workspace_bytes() + 63) / 64 * 64;
  const std::unique_ptr<void, Free> workspace(std::aligned_alloc(64, std::max<std::size_t>(bytes, 64)));

  attention.query.data = q.data();
  attention.key.data = k.data();
  attention.value.data = v.data();
  outputs.output.data = o.data();
  for (int layer = 0; layer < 4; ++layer) {
    std::fill(v.begin(), v.end(), float(layer));
    plan.run(attention, outputs, {.executor = &executor, .workspace = workspace.get(), .workspace_bytes = bytes});
    // Weights sum to one, so a constant value comes back.
    const auto [least, most] = std::minmax_element(o.begin(), o.end());
    std::printf("layer %d: outputs from %.6f to %.6f\n", layer, *least, *most);
    if (*least < float(layer) - 1e-5f || *most > float(layer) + 1e-5f) return 1;
  }
}
