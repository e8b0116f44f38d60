// Filling tensors and calling the library.
#include "bench/case.hpp"

#include <algorithm>
#include <cstring>
#include <random>

#include "base/half.hpp"
#include "cpu/cpu.hpp"

namespace strobe::tools {
namespace {

// Bytes of keys and values that calls walk through before they meet the same ones again.
constexpr std::int64_t kColdBytes = std::int64_t(512) << 20;
constexpr std::size_t kPoolElements = 1000003;  // prime: repeats never line up with rows

}  // namespace

const Buffer& normal_pool(DataType type) {
  static Buffer pools[8];
  Buffer& pool = pools[int(type)];
  if (pool.size() > 0) return pool;
  pool = Buffer(kPoolElements * size_of(type));
  std::mt19937_64 random(42);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < kPoolElements; ++i) store_element(pool.data(), type, std::int64_t(i), normal(random));
  return pool;
}

Tensor BenchProblem::empty(DataType type, std::initializer_list<std::int64_t> shape) {
  Array& array = arrays_.emplace_back(type, std::vector<std::int64_t>(shape));
  std::memset(array.buffer.data(), 0, array.buffer.size());
  return array.view();
}

Tensor BenchProblem::normal(std::initializer_list<std::int64_t> shape) {
  Array& array = arrays_.emplace_back(row_.dtype, std::vector<std::int64_t>(shape));
  const Buffer& pool = normal_pool(row_.dtype);
  std::size_t from = arrays_.size() * 7919 % kPoolElements * size_of(row_.dtype);
  for (std::size_t to = 0; to < array.buffer.size();) {
    const std::size_t bytes = std::min(array.buffer.size() - to, pool.size() - from);
    std::memcpy(array.buffer.data() + to, pool.data() + from, bytes);
    to += bytes;
    from = 0;
  }
  return array.view();
}

BenchProblem::BenchProblem(const BenchCase& row, Executor& executor) : row_(row), executor_(executor) {
  const std::int64_t cache_bytes =
      row.batch * row.key_length * row.kv_heads * (row.head_dim + row.value_dim) * std::int64_t(size_of(row.dtype));
  const bool decode = row.pass == "decode";
  const std::int64_t copies = decode && cache_bytes > 0 ? std::min<std::int64_t>(kColdBytes / cache_bytes + 1, 64) : 1;
  Attention attention;
  attention.query = normal({row.batch, row.query_length, row.query_heads, row.head_dim});
  attention.causal = row.causal;
  for (std::int64_t copy = 0; copy < copies; ++copy) {
    attention.key = normal({row.batch, row.key_length, row.kv_heads, row.head_dim});
    attention.value = normal({row.batch, row.key_length, row.kv_heads, row.value_dim});
    attentions_.push_back(attention);
  }
  const DataType output_type = size_of(row.dtype) == 1 ? DataType::kFloat32 : row.dtype;
  outputs_ = {.output = empty(output_type, {row.batch, row.query_length, row.query_heads, row.value_dim}),
              .lse = empty(DataType::kFloat32, {row.batch, row.query_heads, row.query_length})};
  if (row.pass == "backward") {
    forward(attention, outputs_, {.executor = &executor_});
    upstream_ = {.output = outputs_.output,
                 .lse = outputs_.lse,
                 .grad_output = normal({row.batch, row.query_length, row.query_heads, row.value_dim}),
                 .grad_lse = {}};
    gradients_.query = empty(row.dtype, {row.batch, row.query_length, row.query_heads, row.head_dim});
    gradients_.key = empty(row.dtype, {row.batch, row.key_length, row.kv_heads, row.head_dim});
    gradients_.value = empty(row.dtype, {row.batch, row.key_length, row.kv_heads, row.value_dim});
  }
  for (const Attention& each : attentions_) {
    checked_.push_back(row.pass == "backward" ? check::backward(each, upstream_, gradients_, check::Data::kRequired)
                                              : check::forward(each, outputs_, check::Data::kRequired));
  }
  CpuDevice device = cpu::this_machine();
  device.threads = executor.concurrency();
  if (row.isa) device.best = std::min(device.best, *row.isa);
  choice_ = plan::choose(checked_[0].problem, device);
  cost_ = plan::cost(checked_[0].problem);
  workspace_ = Buffer(choice_.decision.workspace_bytes());
}

void BenchProblem::run() {
  const std::size_t at = next_++ % attentions_.size();
  const bool backward_pass = row_.pass == "backward";
  if (row_.isa) {
    const auto pass = backward_pass ? cpu::backward : cpu::forward;
    pass(checked_[at].problem, checked_[at].buffers, choice_.decision, executor_, workspace_.data());
  } else if (backward_pass) {
    backward(attentions_[at], upstream_, gradients_, {.executor = &executor_});
  } else {
    forward(attentions_[at], outputs_, {.executor = &executor_});
  }
}

Peak BenchProblem::peak() const {
  if (row_.pass == "decode") return {.kind = PeakKind::kRead, .isa = cpu::this_machine().best};
  const Isa isa = choice_.decision.isa;
  if (row_.dtype != DataType::kBFloat16) return {.kind = PeakKind::kMultiplyAdd, .isa = isa};
  const PeakKind kind = isa == Isa::kAmxBf16      ? PeakKind::kTiles
                        : isa == Isa::kAvx512Bf16 ? PeakKind::kDot
                                                  : PeakKind::kMultiplyAdd;
  return {.kind = kind, .isa = isa};
}

}  // namespace strobe::tools
