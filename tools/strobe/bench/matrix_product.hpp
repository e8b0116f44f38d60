// The card's own rate of matrix products: what cuBLAS reaches, where it is there. Compute-bound cases are set against
// it.
#pragma once

#include <memory>

#include "cuda/host/memory.hpp"

namespace strobe::tools {

/// A bfloat16 product of two square matrices.
class MatrixProduct {
 public:
  static constexpr int kSize = 8192;
  static constexpr double kFlops = 2.0 * kSize * kSize * kSize;

  /// Nothing where there is no cuBLAS that can be loaded.
  static std::unique_ptr<MatrixProduct> on(cuda::Stream stream);
  /// Puts one product on the stream.
  void run();

 private:
  explicit MatrixProduct(cuda::Stream stream);

  cuda::Stream stream_;
  void* handle_ = nullptr;  // lives as long as the process
  cuda::DeviceMemory factors_, product_;
};

}  // namespace strobe::tools
