// See cuda.hpp.
#include "bench/cuda.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <thread>

#include "cuda/cuda.hpp"
#include "cuda/host/memory.hpp"
#include "gpu/graph.hpp"
#include "measure.hpp"

namespace strobe::tools {
namespace {

// As the figures were measured that ours are compared with (bench/results).
constexpr int kRounds = 30, kWarmUps = 5;
constexpr std::chrono::milliseconds kRest{200};
constexpr std::size_t kCopyBytes = std::size_t(512) << 20;
// Keys and values that calls of a memory-bound case walk through before they meet the same ones again: more than any
// second-level cache holds.
constexpr std::int64_t kColdGpuBytes = std::int64_t(768) << 20;

/// The tensors of a case on the GPU, and the call.
class GpuProblem {
 public:
  GpuProblem(const BenchCase& row, cuda::Stream stream) : row_(row), stream_(stream) {
    Attention a;
    a.query = normal({row.batch, row.query_length, row.query_heads, row.head_dim});
    a.causal = row.causal;
    add_option(a);
    const std::int64_t cache_bytes =
        row.batch * row.key_length * row.kv_heads * (row.head_dim + row.value_dim) * std::int64_t(size_of(row.dtype));
    const std::int64_t copies = row.pass == "decode" && cache_bytes > 0 ? kColdGpuBytes / cache_bytes + 1 : 1;
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      a.key = normal({row.batch, row.key_length, row.kv_heads, row.head_dim});
      a.value = normal({row.batch, row.key_length, row.kv_heads, row.value_dim});
      attentions_.push_back(a);
    }
    outputs_ = {.output = tensor(row.dtype, {row.batch, row.query_length, row.query_heads, row.value_dim}),
                .lse = tensor(DataType::kFloat32, {row.batch, row.query_heads, row.query_length})};
    execution_ = {.device = {.kind = DeviceKind::kCuda, .index = stream.device}, .stream = stream.handle};
    if (row.pass == "backward") {
      forward(a, outputs_, execution_);
      upstream_ = {.output = outputs_.output,
                   .lse = outputs_.lse,
                   .grad_output = normal({row.batch, row.query_length, row.query_heads, row.value_dim}),
                   .grad_lse = {}};
      gradients_.query = tensor(row.dtype, {row.batch, row.query_length, row.query_heads, row.head_dim});
      gradients_.key = tensor(row.dtype, {row.batch, row.key_length, row.kv_heads, row.head_dim});
      gradients_.value = tensor(row.dtype, {row.batch, row.key_length, row.kv_heads, row.value_dim});
      plan_ = plan_backward(a, upstream_, gradients_, execution_);
      problem_ = check::backward(a, upstream_, gradients_, check::Data::kIgnored).problem;
    } else {
      plan_ = plan_forward(a, outputs_, execution_);
      problem_ = check::forward(a, outputs_, check::Data::kIgnored).problem;
    }
    workspace_.emplace(stream.device, plan_.workspace_bytes());
    execution_.workspace = workspace_->data();
    execution_.workspace_bytes = workspace_->bytes();
  }

  void run() {
    const Attention& attention = attentions_[next_++ % attentions_.size()];
    if (row_.pass == "backward") {
      plan_.run(attention, upstream_, gradients_, execution_);
    } else {
      plan_.run(attention, outputs_, execution_);
    }
  }
  const char* kernel() const { return plan_.kernel(); }
  plan::Cost cost() const { return plan::cost(problem_); }

 private:
  Tensor tensor(DataType type, std::initializer_list<std::int64_t> shape) {
    Tensor view = Tensor::contiguous(nullptr, type, shape);
    view.data = memory_.emplace_back(stream_.device, std::size_t(view.elements()) * size_of(type)).data();
    cuda::fill(stream_, view.data, 0, memory_.back().bytes());
    return view;
  }
  Tensor normal(std::initializer_list<std::int64_t> shape) { return normal(row_.dtype, shape); }
  Tensor normal(DataType type, std::initializer_list<std::int64_t> shape) {
    const Tensor view = tensor(type, shape);
    const Buffer& pool = normal_pool(type);
    const cuda::DeviceMemory on_device(stream_.device, pool.size());
    cuda::copy_to_device(stream_, on_device.data(), pool.data(), pool.size());
    std::size_t from = memory_.size() * 7919 * size_of(type) % pool.size();
    for (std::size_t to = 0; to < memory_.back().bytes();) {
      const std::size_t bytes = std::min(memory_.back().bytes() - to, pool.size() - from);
      gpu::copy_on_device(stream_, static_cast<char*>(view.data) + to, static_cast<char*>(on_device.data()) + from,
                          bytes);
      to += bytes;
      from = 0;
    }
    cuda::synchronise(stream_);
    return view;
  }
  template <typename Element>
  Tensor values(DataType type, std::initializer_list<std::int64_t> shape, const std::vector<Element>& elements) {
    const Tensor view = tensor(type, shape);
    cuda::copy_to_device(stream_, view.data, elements.data(), elements.size() * sizeof(Element));
    return view;
  }

  void add_option(Attention& a) {
    const std::int64_t length = row_.key_length;
    if (row_.option == "window") a.window_left = 1023, a.window_right = 0;
    if (row_.option == "softcap") a.softcap = 30.0f;
    if (row_.option == "sink") a.sink = normal(DataType::kFloat32, {row_.query_heads});
    if (row_.option == "dropout") a.dropout = 0.1f;
    if (row_.option == "bias") a.bias = normal({1, row_.query_heads, row_.query_length, length});
    if (row_.option == "alibi") {
      std::vector<float> slopes(std::size_t(row_.query_heads), 0.01f);
      a.alibi_slopes = values(DataType::kFloat32, {row_.query_heads}, slopes);
    }
    if (row_.option == "documents") {  // four to a sequence
      std::vector<std::int32_t> documents(std::size_t(row_.batch * length));
      for (std::size_t i = 0; i < documents.size(); ++i) {
        documents[i] = std::int32_t(std::int64_t(i) % length * 4 / length);
      }
      a.query_documents = values(DataType::kInt32, {row_.batch, length}, documents);
    }
    if (row_.option == "block_mask") {  // a band as wide as the window, in tiles of 128
      constexpr std::int64_t kTile = 128, kBand = 1024 / kTile;
      const std::int64_t tiles = (length + kTile - 1) / kTile;
      std::vector<unsigned char> mask(std::size_t(tiles * tiles));
      for (std::int64_t i = 0; i < tiles; ++i) {
        for (std::int64_t j = std::max<std::int64_t>(i - kBand + 1, 0); j <= i; ++j)
          mask[std::size_t(i * tiles + j)] = 1;
      }
      a.block_rows = a.block_columns = kTile;
      a.block_mask = values(DataType::kBool, {1, 1, tiles, tiles}, mask);
    }
  }

  BenchCase row_;
  cuda::Stream stream_;
  std::deque<cuda::DeviceMemory> memory_;
  std::vector<Attention> attentions_;  // the same problem on several caches
  std::size_t next_ = 0;
  ForwardOutputs outputs_;
  BackwardInputs upstream_;
  Gradients gradients_;
  Execution execution_;
  std::optional<cuda::DeviceMemory> workspace_;
  Plan plan_;
  Problem problem_;
};

class GpuClock {
 public:
  explicit GpuClock(int device) : device_(device), stream_(device), memory_(device, 2 * kCopyBytes) {}

  cuda::Stream stream() const { return stream_.get(); }

  /// Seconds of each of `rounds` calls after some that do not count. The GPU is kept busy until the host has put all of
  /// them on the stream, so that no round waits for its launch.
  template <typename Call>
  std::vector<double> time(const Call& call, int warm_ups, int rounds) {
    constexpr int kBusy = 4;  // fills of a gigabyte, a third of a millisecond each
    for (int i = 0; i < kBusy; ++i) cuda::fill(stream(), memory_.data(), 0, memory_.bytes());
    for (int i = 0; i < warm_ups; ++i) call();
    std::deque<cuda::Event> begins, ends;
    for (int round = 0; round < rounds; ++round) {
      begins.emplace_back(device_).record(stream());
      call();
      ends.emplace_back(device_).record(stream());
    }
    cuda::synchronise(stream());
    std::vector<double> times;
    for (int round = 0; round < rounds; ++round) {
      times.push_back(begins[std::size_t(round)].milliseconds_until(ends[std::size_t(round)]) / 1e3);
    }
    return times;
  }

  /// GB/s of copies within the device, reads and writes counted.
  double copy_rate() {
    constexpr int kCopies = 5;
    auto* to = static_cast<char*>(memory_.data());
    const auto copy = [&] { gpu::copy_on_device(stream(), to, to + kCopyBytes, kCopyBytes); };
    return 2.0 * double(kCopyBytes) / median(time(copy, 1, kCopies)) / 1e9;
  }

 private:
  int device_;
  cuda::OwnStream stream_;
  cuda::DeviceMemory memory_;
};

Row measure(GpuClock& clock, const BenchCase& row, int rounds) {
  GpuProblem problem(row, clock.stream());
  Row result;
  result.memory_bound = row.pass == "decode";
  result.kernel = problem.kernel();
  std::this_thread::sleep_for(kRest);
  const double before = result.memory_bound ? clock.copy_rate() : 0;
  const std::vector<double> times = clock.time([&] { problem.run(); }, kWarmUps, rounds > 0 ? rounds : kRounds);
  const plan::Cost cost = problem.cost();
  result.ms = median(times) * 1e3;
  result.spread = spread(times);
  result.rate = (result.memory_bound ? cost.bytes : cost.flops) / median(times) / 1e9;
  if (result.memory_bound) {
    result.peak = (before + clock.copy_rate()) / 2;
    result.peak_name = "device copy";
    result.fraction = result.rate / result.peak;
  }
  return result;
}

/// Host time of a planned call of a small problem, its launches included.
void bench_host_time(GpuClock& clock, const std::string& filter, Output& output) {
  const BenchCase row{.name = "host time of a planned call, launch included",
                      .dtype = DataType::kBFloat16,
                      .query_length = 128,
                      .key_length = 128};
  if (row.name.find(filter) == std::string::npos) return;
  progress(row.name);
  GpuProblem problem(row, clock.stream());
  constexpr int kBatches = 25, kCalls = 200;  // fewer than the driver queues before it makes the host wait
  std::vector<double> times;
  for (int batch = 0; batch < kBatches; ++batch) {
    times.push_back(seconds([&] {
                      for (int i = 0; i < kCalls; ++i) problem.run();
                    }) /
                    kCalls * 1e6);
    cuda::synchronise(clock.stream());
  }
  output.figure(row.name.c_str(), median(times), "us", 8, false);
}

}  // namespace

void bench_on_gpu(int device, const std::vector<BenchCase>& rows, const std::string& filter, int rounds,
                  Output& output) {
  GpuClock clock(device);
  output.text("{}; medians of {} calls timed on the GPU\n\n",
              strobe::describe({.kind = DeviceKind::kCuda, .index = device}), rounds > 0 ? rounds : kRounds);
  output.heading();
  for (const BenchCase& row : rows) {
    if (row.name.find(filter) == std::string::npos) continue;
    progress(row.name);
    try {
      const Row result = measure(clock, row, rounds);
      output.row(row, result);
      output.line(json_of(row, result, "cuda", 0));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      output.text("{:44} {}\n", row.name, error.what());
      output.line({{"case", row.name}, {"backend", "cuda"}, {"unsupported", error.what()}});
    }
  }
  bench_host_time(clock, filter, output);
}

}  // namespace strobe::tools
