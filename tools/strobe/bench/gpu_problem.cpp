// See gpu_problem.hpp.
#include "bench/gpu_problem.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "cuda/cuda.hpp"
#include "gpu/graph.hpp"

namespace strobe::tools {
namespace {

// Keys and values that calls of a memory-bound case walk through before they meet the same ones again: more than any
// second-level cache holds.
constexpr std::int64_t kColdGpuBytes = std::int64_t(768) << 20;
constexpr std::int64_t kWindow = 1024, kMaskTile = 128;

/// Whether tile (i, j) of the block mask is set: a band as wide as the window.
bool in_band(std::int64_t i, std::int64_t j) { return j <= i && i - j < kWindow / kMaskTile; }

/// Lognormal, as lengths of texts are, the same at every call.
std::vector<std::int64_t> mixed_lengths(std::int64_t sequences, std::int64_t mean) {
  constexpr double kSpread = 0.8;
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> draw(0.0, kSpread);
  std::vector<double> drawn(static_cast<std::size_t>(sequences));
  for (double& length : drawn) length = draw(random);
  const double scale = double(sequences * mean) / std::accumulate(drawn.begin(), drawn.end(), 0.0);
  std::vector<std::int64_t> lengths;
  for (const double length : drawn) lengths.push_back(std::max<std::int64_t>(std::llround(length * scale), 1));
  return lengths;
}

}  // namespace

GpuProblem::GpuProblem(const BenchCase& row, cuda::Stream stream, const std::string& kernel)
    : row_(row), stream_(stream) {
  if (packed()) lengths_ = mixed_lengths(row.batch, row.query_length);
  Attention a;
  a.query = rows(row.query_length, row.query_heads, row.head_dim);
  a.causal = row.causal;
  add_option(a);
  const std::int64_t cache_bytes =
      row.batch * row.key_length * row.kv_heads * (row.head_dim + row.value_dim) * std::int64_t(size_of(row.dtype));
  const std::int64_t copies = row.pass == "decode" && cache_bytes > 0 ? kColdGpuBytes / cache_bytes + 1 : 1;
  for (std::int64_t copy = 0; copy < copies; ++copy) {
    a.key = rows(row.key_length, row.kv_heads, row.head_dim);
    a.value = rows(row.key_length, row.kv_heads, row.value_dim);
    attentions_.push_back(a);
  }
  const std::int64_t tokens = std::accumulate(lengths_.begin(), lengths_.end(), std::int64_t(0));
  outputs_ = {.output = rows(row.query_length, row.query_heads, row.value_dim, false),
              .lse = packed() ? tensor(DataType::kFloat32, {row.query_heads, tokens})
                              : tensor(DataType::kFloat32, {row.batch, row.query_heads, row.query_length})};
  execution_ = {.device = {.kind = DeviceKind::kCuda, .index = stream.device}, .stream = stream.handle};
  if (row.pass == "backward") {
    forward(a, outputs_, execution_);
    upstream_ = {.output = outputs_.output,
                 .lse = outputs_.lse,
                 .grad_output = rows(row.query_length, row.query_heads, row.value_dim),
                 .grad_lse = {}};
    gradients_.query = rows(row.query_length, row.query_heads, row.head_dim, false);
    gradients_.key = rows(row.key_length, row.kv_heads, row.head_dim, false);
    gradients_.value = rows(row.key_length, row.kv_heads, row.value_dim, false);
  }
  for (const Attention& each : attentions_) {
    checked_.push_back(row.pass == "backward" ? check::backward(each, upstream_, gradients_, check::Data::kOnDevice)
                                              : check::forward(each, outputs_, check::Data::kOnDevice));
  }
  problem_ = checked_[0].problem;
  choose(kernel);
  workspace_.emplace(stream.device, choice_.decision.workspace_bytes);
  execution_.workspace = workspace_->data();
  execution_.workspace_bytes = workspace_->bytes();
}

void GpuProblem::choose(const std::string& kernel) {
  const CudaDevice& device = cuda::device(stream_.device);
  if (kernel.empty()) {
    choice_ = plan::choose(problem_, device);
    plan_ = row_.pass == "backward" ? plan_backward(attentions_[0], upstream_, gradients_, execution_)
                                    : plan_forward(attentions_[0], outputs_, execution_);
    return;
  }
  for (const plan::CudaChoice& candidate : plan::candidates(problem_, device)) {
    if (std::string_view(candidate.kernel->name).find(kernel) == std::string_view::npos) continue;
    choice_ = candidate;
    return cuda::prepare(choice_.decision, stream_);
  }
  throw Error(ErrorCode::kUnsupported, "--kernel", kernel, "part of the name of a kernel that serves the case");
}

void GpuProblem::run() {
  const std::size_t at = next_++ % attentions_.size();
  if (!plan_) {
    cuda::run(checked_[at].problem, checked_[at].buffers, choice_.decision, stream_, execution_.workspace);
  } else if (row_.pass == "backward") {
    plan_->run(attentions_[at], upstream_, gradients_, execution_);
  } else {
    plan_->run(attentions_[at], outputs_, execution_);
  }
}

plan::Cost GpuProblem::cost() const {
  plan::Cost cost = plan::cost(problem_);
  if (!packed()) return cost;
  // How long sequences are, only the device knows.
  double pairs = 0;
  for (const std::int64_t length : lengths_) pairs += double(length) * double(length) * (row_.causal ? 0.5 : 1.0);
  const double passes = row_.pass == "backward" ? 2.5 : 1.0;
  cost.flops = passes * 2.0 * pairs * double(row_.query_heads) * double(row_.head_dim + row_.value_dim);
  return cost;
}

double GpuProblem::tiles_seen(std::int64_t queries, std::int64_t keys) const {
  const std::int64_t tile = std::max(choice_.decision.query_tile, 1), block = std::max(choice_.decision.key_block, 1);
  double seen = 0;
  for (std::int64_t first = 0; first < queries; first += tile) {
    for (std::int64_t first_key = 0; first_key < keys; first_key += block) {
      const std::int64_t last = first + tile - 1, last_key = first_key + block - 1;
      bool any = !row_.causal || first_key <= last;
      if (row_.option == "window") any = first_key <= last && last_key > first - kWindow;
      if (row_.option == "block_mask") {
        any = false;
        for (std::int64_t m = first / kMaskTile; m <= last / kMaskTile; ++m) {
          for (std::int64_t n = first_key / kMaskTile; n <= last_key / kMaskTile; ++n) any |= in_band(m, n);
        }
      }
      seen += any;
    }
  }
  return seen;
}

double GpuProblem::share_of_tiles() const {
  const std::int64_t rows = std::max(choice_.decision.query_tile, 1), keys = std::max(choice_.decision.key_block, 1);
  const std::int64_t row_tiles = (row_.query_length + rows - 1) / rows, key_tiles = (row_.key_length + keys - 1) / keys;
  if (!packed()) return tiles_seen(row_.query_length, row_.key_length) / double(row_tiles * key_tiles);
  double seen = 0;
  for (const std::int64_t length : lengths_) seen += tiles_seen(length, length);
  return seen / (double(row_.batch) * tiles_seen(row_.query_length, row_.key_length));
}

double GpuProblem::bias_bytes() const {
  const Tensor& bias = attentions_[0].bias;
  return bias.given() ? double(bias.elements()) * double(size_of(bias.dtype)) : 0;
}

Tensor GpuProblem::tensor(DataType type, std::initializer_list<std::int64_t> shape) {
  Tensor view = Tensor::contiguous(nullptr, type, shape);
  view.data = memory_.emplace_back(stream_.device, std::size_t(view.elements()) * size_of(type)).data();
  cuda::fill(stream_, view.data, 0, memory_.back().bytes());
  return view;
}

Tensor GpuProblem::normal(DataType type, std::initializer_list<std::int64_t> shape) {
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

Tensor GpuProblem::rows(std::int64_t length, std::int64_t heads, std::int64_t dim, bool random) {
  if (packed()) {
    const std::int64_t tokens = std::accumulate(lengths_.begin(), lengths_.end(), std::int64_t(0));
    return random ? normal({tokens, heads, dim}) : tensor(row_.dtype, {tokens, heads, dim});
  }
  return random ? normal({row_.batch, length, heads, dim}) : tensor(row_.dtype, {row_.batch, length, heads, dim});
}

void GpuProblem::add_option(Attention& a) {
  const std::int64_t length = row_.key_length;
  if (packed()) {
    std::vector<std::int32_t> offsets(lengths_.size() + 1);
    std::partial_sum(lengths_.begin(), lengths_.end(), offsets.begin() + 1);
    a.query_offsets = a.key_offsets = values(DataType::kInt32, {row_.batch + 1}, offsets);
  }
  if (row_.option == "window") a.window_left = kWindow - 1, a.window_right = 0;
  if (row_.option == "softcap") a.softcap = 30.0f;
  if (row_.option == "sink") a.sink = normal(DataType::kFloat32, {row_.query_heads});
  if (row_.option == "dropout") a.dropout = 0.1f;
  if (row_.option == "bias") a.bias = normal({row_.batch, row_.query_heads, row_.query_length, length});
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
  if (row_.option == "prefix") a.prefix_length = length / 4;
  if (row_.option == "mask") {  // seven keys of eight
    std::vector<unsigned char> mask(std::size_t(row_.query_length * length));
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i * 2654435761u >> 7 & 7 ? 1 : 0;
    a.mask = values(DataType::kBool, {1, 1, row_.query_length, length}, mask);
  }
  if (row_.option == "block_mask") {
    const std::int64_t tiles = (length + kMaskTile - 1) / kMaskTile;
    std::vector<unsigned char> mask(std::size_t(tiles * tiles));
    for (std::int64_t i = 0; i < tiles; ++i) {
      for (std::int64_t j = 0; j < tiles; ++j) mask[std::size_t(i * tiles + j)] = in_band(i, j);
    }
    a.block_rows = a.block_columns = kMaskTile;
    a.block_mask = values(DataType::kBool, {1, 1, tiles, tiles}, mask);
  }
}

}  // namespace strobe::tools
