// See matrix_product.hpp. cuBLAS is loaded when it is wanted, as NVRTC is, from the places where NVRTC may lie.
#include "bench/matrix_product.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/case.hpp"
#include "cuda/jit/nvrtc.hpp"

namespace strobe::tools {
namespace {

// Of cublas_api.h, as they have been since CUDA 11.
enum : int { kSuccess = 0, kNoTranspose = 0, kBFloat16 = 14, kCompute32 = 68, kDefaultAlgorithm = -1 };

struct Cublas {
  int (*create)(void** handle) = nullptr;
  int (*set_stream)(void* handle, void* stream) = nullptr;
  int (*product)(void* handle, int, int, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda,
                 const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
                 int algorithm) = nullptr;
  bool usable() const { return create != nullptr && set_stream != nullptr && product != nullptr; }
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

/// Where NVRTC lies, or in the folder beside it where Python's wheels of CUDA 12 keep each library.
std::vector<std::string> candidates() {
  std::vector<std::string> paths;
  for (const std::string& nvrtc : cuda::nvrtc_candidates()) {
    const std::size_t slash = nvrtc.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : nvrtc.substr(0, slash + 1);
    for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
      paths.push_back(folder + name);
      if (!folder.empty()) paths.push_back(folder + "../../cublas/lib/" + name);
    }
  }
  return paths;
}

const Cublas& cublas() {
  static const Cublas loaded = [] {
    for (const std::string& path : candidates()) {
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) continue;
      Cublas found;
      find(library, "cublasCreate_v2", found.create);
      find(library, "cublasSetStream_v2", found.set_stream);
      find(library, "cublasGemmEx", found.product);
      if (found.usable()) return found;
    }
    return Cublas{};
  }();
  return loaded;
}

}  // namespace

MatrixProduct::MatrixProduct(cuda::Stream stream)
    : stream_(stream),
      factors_(stream.device, std::size_t(kSize) * kSize * 2),
      product_(stream.device, std::size_t(kSize) * kSize * 2) {}

std::unique_ptr<MatrixProduct> MatrixProduct::on(cuda::Stream stream) {
  if (!cublas().usable()) return {};
  const cuda::Launcher context(stream);
  std::unique_ptr<MatrixProduct> result(new MatrixProduct(stream));
  if (cublas().create(&result->handle_) != kSuccess) return {};
  if (cublas().set_stream(result->handle_, stream.handle) != kSuccess) return {};
  // Normally distributed, since the card's clock depends on what it multiplies.
  const Buffer& pool = normal_pool(DataType::kBFloat16);
  for (std::size_t to = 0; to < result->factors_.bytes(); to += pool.size()) {
    cuda::copy_to_device(stream, static_cast<char*>(result->factors_.data()) + to, pool.data(),
                         std::min(pool.size(), result->factors_.bytes() - to));
  }
  return result;
}

void MatrixProduct::run() {
  const cuda::Launcher context(stream_);
  const float one = 1, zero = 0;
  const int status = cublas().product(handle_, kNoTranspose, kNoTranspose, kSize, kSize, kSize, &one, factors_.data(),
                                      kBFloat16, kSize, factors_.data(), kBFloat16, kSize, &zero, product_.data(),
                                      kBFloat16, kSize, kCompute32, kDefaultAlgorithm);
  if (status != kSuccess) {
    throw Error(ErrorCode::kInternal, "cuBLAS's answer to a matrix product", "status " + std::to_string(status), "0");
  }
}

}  // namespace strobe::tools
