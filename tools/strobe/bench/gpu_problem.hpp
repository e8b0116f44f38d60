// The tensors of a benchmark case on a GPU, and the call.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "bench/case.hpp"
#include "cuda/host/memory.hpp"

namespace strobe::tools {

class GpuProblem {
 public:
  /// `kernel` is part of the name of the kernel family to take; "": the planned one, by the public API.
  /// @throws Error (kUnsupported) where no kernel serves the case, or none of that name.
  GpuProblem(const BenchCase& row, cuda::Stream stream, const std::string& kernel = "");

  void run();
  const char* kernel() const { return choice_.kernel->name; }
  /// Its main kernel.
  const cuda::KernelKey& key() const { return choice_.decision.kernels[0]; }
  plan::Cost cost() const;
  /// Of the (query tile, key block) pairs that the kernel cuts the plain case into, those in which the window or the
  /// block mask lets something be seen; as many as packed sequences have, over those of the plain case.
  double share_of_tiles() const;
  /// Bytes of the bias that must be read.
  double bias_bytes() const;

 private:
  Tensor tensor(DataType type, std::initializer_list<std::int64_t> shape);
  Tensor normal(std::initializer_list<std::int64_t> shape) { return normal(row_.dtype, shape); }
  Tensor normal(DataType type, std::initializer_list<std::int64_t> shape);
  template <typename Element>
  Tensor values(DataType type, std::initializer_list<std::int64_t> shape, const std::vector<Element>& elements) {
    const Tensor view = tensor(type, shape);
    cuda::copy_to_device(stream_, view.data, elements.data(), elements.size() * sizeof(Element));
    return view;
  }
  bool packed() const { return row_.option == "packed"; }
  /// [batch, length, heads, dim], packed [length of all, heads, dim]
  Tensor rows(std::int64_t length, std::int64_t heads, std::int64_t dim, bool random = true);
  /// Pairs of tiles of a sequence in which something is seen.
  double tiles_seen(std::int64_t queries, std::int64_t keys) const;
  void add_option(Attention& a);
  void choose(const std::string& kernel);

  BenchCase row_;
  std::vector<std::int64_t> lengths_;  // of packed sequences
  cuda::Stream stream_;
  std::deque<cuda::DeviceMemory> memory_;
  std::vector<check::Checked> checked_;  // the same problem on several caches
  std::vector<Attention> attentions_;
  std::size_t next_ = 0;
  ForwardOutputs outputs_;
  BackwardInputs upstream_;
  Gradients gradients_;
  Execution execution_;
  std::optional<cuda::DeviceMemory> workspace_;
  std::optional<Plan> plan_;  // unless the kernel was named
  plan::CudaChoice choice_;
  Problem problem_;
};

}  // namespace strobe::tools
