// Tensors of more than 2^31 elements on a GPU: a small problem that the reference can judge is laid at the end of huge
// tensors, behind a window that keeps everything else out of its sight.
#include <algorithm>

#include "gpu/gpu_test.hpp"

namespace strobe::cases {
namespace {

constexpr std::int64_t kHeads = 16, kDim = 128, kQueries = 64;
constexpr std::int64_t kLength = (std::int64_t(1) << 20) + 640;  // * kHeads * kDim is beyond 2^31
constexpr std::int64_t kPage = 64, kPages = kLength / kPage;
constexpr const char* kCase = "q=64 k=128 heads=16/16 dim=128 dtype=bfloat16 window=63,0";
static_assert(kLength * kHeads * kDim > std::int64_t(1) << 31);

class GpuLarge : public OnGpu {
 protected:
  /// Whether the GPU has room for so many tensors of rows; skips otherwise.
  bool fits(int tensors) const {
    const auto bytes = double(tensors) * double(kLength * kHeads * kDim) * 2.0;
    return double(cuda::device(0).memory_bytes) > 1.2 * bytes;
  }

  /// A huge tensor of rows whose last ones are `tail`'s, and whose other bytes are `filling`.
  Tensor rows(const Tensor& tail, unsigned char filling) {
    const Tensor whole = memory(Tensor::contiguous(nullptr, tail.dtype, {1, kLength, kHeads, kDim}), filling);
    if (tail.data != nullptr) copy_in(tail_address(whole, tail), tail);
    return whole;
  }
  /// A huge pool of pages whose last ones are `tail`'s, and whose other bytes are poison.
  Tensor pages(const Tensor& tail) {
    const Tensor whole = memory(Tensor::contiguous(nullptr, tail.dtype, {kPages, kPage, kHeads, kDim}), kPoison);
    copy_in(static_cast<char*>(whole.data) + (kPages - tail.shape[0]) * kPage * kHeads * kDim * 2, tail);
    return whole;
  }
  /// The same as rows() for a value a row and head, [1, heads, length].
  Tensor row_scores(const Tensor& tail, unsigned char filling) {
    const Tensor whole = memory(Tensor::contiguous(nullptr, DataType::kFloat32, {1, kHeads, kLength}), filling);
    for (std::int64_t h = 0; h < kHeads; ++h) copy_in(lse_address(whole, h), head(tail, h));
    return whole;
  }
  void read_rows(const Tensor& whole, const Tensor& tail) { copy_out(tail, tail_address(whole, tail)); }
  void read_row_scores(const Tensor& whole, const Tensor& tail) {
    for (std::int64_t h = 0; h < kHeads; ++h) copy_out(head(tail, h), lse_address(whole, h));
  }

  /// Runs every kernel that serves the problem, and judges the small one after each.
  template <typename Read>
  void expect_every_kernel(const check::Checked& checked, Instance& small, const Read& read) {
    const auto choices = plan::candidates(checked.problem, cuda::device(0));
    if (choices.empty()) GTEST_SKIP() << "no CUDA kernel serves it";
    Judge judge(small);
    for (const plan::CudaChoice& choice : choices) {
      reset(small);
      cuda::run(checked.problem, checked.buffers, choice.decision, stream(), nullptr);
      cuda::synchronise(stream());
      read();
      for (const std::string& failure : judge.judge().failures) ADD_FAILURE() << choice.kernel->name << ": " << failure;
    }
  }

 private:
  Tensor memory(Tensor view, unsigned char filling) {
    const std::size_t bytes = std::size_t(view.elements()) * size_of(view.dtype);
    view.data = memory_.emplace_back(0, bytes).data();
    cuda::fill(stream(), view.data, filling, bytes);
    return view;
  }
  static char* tail_address(const Tensor& whole, const Tensor& tail) {
    return static_cast<char*>(whole.data) +
           (kLength - tail.shape[1]) * whole.strides[1] * std::int64_t(size_of(whole.dtype));
  }
  static Tensor head(Tensor lse, std::int64_t h) {
    lse.data = static_cast<float*>(lse.data) + h * lse.strides[1];
    lse.shape[1] = 1;
    return lse;
  }
  static char* lse_address(const Tensor& whole, std::int64_t h) {
    return reinterpret_cast<char*>(static_cast<float*>(whole.data) + (h + 1) * kLength - kQueries);
  }
  static std::size_t bytes_of(const Tensor& tensor) { return std::size_t(tensor.elements()) * size_of(tensor.dtype); }
  void copy_in(char* to, const Tensor& tail) { cuda::copy_to_device(stream(), to, tail.data, bytes_of(tail)); }
  void copy_out(const Tensor& tail, const char* from) { cuda::copy_to_host(stream(), tail.data, from, bytes_of(tail)); }

  std::deque<cuda::DeviceMemory> memory_;
};

TEST_F(GpuLarge, Forward) {
  if (!fits(4)) GTEST_SKIP() << "the GPU has too little memory";
  const auto small = build(parse_case(kCase));
  Attention attention = small->attention;
  for (Tensor Attention::*tensor : {&Attention::query, &Attention::key, &Attention::value}) {
    attention.*tensor = rows(small->attention.*tensor, kPoison);
  }
  const ForwardOutputs outputs{.output = rows(small->outputs.output, kPoison),
                               .lse = row_scores(small->outputs.lse, kPoison)};
  expect_every_kernel(check::forward(attention, outputs, check::Data::kOnDevice), *small, [&] {
    read_rows(outputs.output, small->outputs.output);
    read_row_scores(outputs.lse, small->outputs.lse);
  });
}

TEST_F(GpuLarge, DecodeFromAnEnormousCache) {
  if (!fits(2)) GTEST_SKIP() << "the GPU has too little memory";
  const auto small = build(parse_case("q=1 k=128 heads=16/16 dim=128 dtype=bfloat16 window=63,0"));
  CudaInstance on_gpu(*small, stream());
  on_gpu.attention.key = rows(small->attention.key, kPoison);
  on_gpu.attention.value = rows(small->attention.value, kPoison);
  expect_every_kernel(check::forward(on_gpu.attention, on_gpu.outputs, check::Data::kOnDevice), *small,
                      [&] { on_gpu.copies.download(); });
}

TEST_F(GpuLarge, PagesOfAnEnormousPool) {
  if (!fits(2)) GTEST_SKIP() << "the GPU has too little memory";
  for (const char* line : {"q=1 k=128 page=64 heads=16/16 dim=128 dtype=bfloat16 key_lengths=100",
                           "q=40 k=128 page=64 heads=16/16 dim=128 dtype=bfloat16 key_lengths=100 causal"}) {
    SCOPED_TRACE(line);
    const auto small = build(parse_case(line));
    CudaInstance on_gpu(*small, stream());
    on_gpu.attention.key = pages(small->attention.key);
    on_gpu.attention.value = pages(small->attention.value);
    // The page table as it is for the huge pool, and on the host as the reference knows it.
    const Tensor& table = small->attention.page_table;
    auto* entries = static_cast<std::int32_t*>(table.data);
    const std::vector<std::int32_t> known(entries, entries + table.elements());
    std::vector<std::int32_t> moved = known;
    for (std::int32_t& page : moved) page += std::int32_t(kPages - small->attention.key.shape[0]);
    cuda::copy_to_device(stream(), on_gpu.attention.page_table.data, moved.data(), moved.size() * sizeof moved[0]);
    expect_every_kernel(check::forward(on_gpu.attention, on_gpu.outputs, check::Data::kOnDevice), *small, [&] {
      on_gpu.copies.download();
      std::copy(known.begin(), known.end(), entries);
    });
  }
}

// Zeros fill the huge tensors here: rows of zeros send no gradient anywhere.
TEST_F(GpuLarge, Backward) {
  if (!fits(10)) GTEST_SKIP() << "the GPU has too little memory";
  const auto small = build(parse_case(std::string("pass=backward ") + kCase));
  Attention attention = small->attention;
  for (Tensor Attention::*tensor : {&Attention::query, &Attention::key, &Attention::value}) {
    attention.*tensor = rows(small->attention.*tensor, 0);
  }
  const BackwardInputs upstream{.output = rows(small->upstream.output, 0),
                                .lse = row_scores(small->upstream.lse, 0),
                                .grad_output = rows(small->upstream.grad_output, 0),
                                .grad_lse = {}};
  Gradients gradients = small->gradients;
  for (Tensor Gradients::*tensor : {&Gradients::query, &Gradients::key, &Gradients::value}) {
    gradients.*tensor = rows(small->gradients.*tensor, kPoison);
  }
  expect_every_kernel(check::backward(attention, upstream, gradients, check::Data::kOnDevice), *small, [&] {
    for (Tensor Gradients::*tensor : {&Gradients::query, &Gradients::key, &Gradients::value}) {
      read_rows(gradients.*tensor, small->gradients.*tensor);
    }
  });
}

}  // namespace
}  // namespace strobe::cases
