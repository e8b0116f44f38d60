// See graph.hpp.
#include "gpu/graph.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "cuda/host/driver.hpp"
#include "strobe/types.hpp"

namespace strobe::gpu {
namespace {

using cuda::CuPointer, cuda::CuResult, cuda::CuStream, cuda::Launcher, cuda::require;

struct Functions {
  CuResult (*capture_begin)(CuStream, int mode);
  CuResult (*capture_end)(CuStream, void** graph);
  CuResult (*instantiate)(void** executable, void* graph, unsigned long long flags);
  CuResult (*launch)(void* executable, CuStream);
  CuResult (*destroy_executable)(void* executable);
  CuResult (*destroy_graph)(void* graph);
  CuResult (*copy)(CuPointer to, CuPointer from, std::size_t bytes, CuStream);
};

template <typename Function>
void resolve(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, symbol));
  if (function == nullptr) {
    throw Error(ErrorCode::kUnsupported, "the NVIDIA driver", std::string("without ") + symbol, "of CUDA 12 or later");
  }
}

/// The library has loaded the driver before anything here is called.
const Functions& functions() {
  static const Functions found = [] {
    const char* chosen = std::getenv("STROBE_CUDA_DRIVER");
    void* library = dlopen(chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1", RTLD_NOW);
    if (library == nullptr) throw Error(ErrorCode::kUnsupported, "the NVIDIA driver", "not there", "loaded");
    Functions result;
    resolve(library, "cuStreamBeginCapture_v2", result.capture_begin);
    resolve(library, "cuStreamEndCapture", result.capture_end);
    resolve(library, "cuGraphInstantiateWithFlags", result.instantiate);
    resolve(library, "cuGraphLaunch", result.launch);
    resolve(library, "cuGraphExecDestroy", result.destroy_executable);
    resolve(library, "cuGraphDestroy", result.destroy_graph);
    resolve(library, "cuMemcpyDtoDAsync_v2", result.copy);
    return result;
  }();
  return found;
}

}  // namespace

Graph::Graph(cuda::Stream stream, const std::function<void()>& work) : device_(stream.device) {
  constexpr int kThreadLocal = 1;  // other threads stay free to allocate
  const Launcher context(stream);
  const Functions& cu = functions();
  require(cu.capture_begin(stream.handle, kThreadLocal), "beginning a capture");
  void* graph = nullptr;
  try {
    work();
  } catch (...) {
    cu.capture_end(stream.handle, &graph);
    if (graph != nullptr) cu.destroy_graph(graph);
    throw;
  }
  require(cu.capture_end(stream.handle, &graph), "ending a capture");
  const CuResult result = cu.instantiate(&executable_, graph, 0);
  cu.destroy_graph(graph);
  require(result, "making a graph");
}

Graph::~Graph() {
  const Launcher context({.device = device_});
  functions().destroy_executable(executable_);
}

void Graph::launch(cuda::Stream stream) const {
  const Launcher context(stream);
  require(functions().launch(executable_, stream.handle), "launching a graph");
}

void copy_on_device(cuda::Stream stream, void* to, const void* from, std::size_t bytes) {
  const Launcher context(stream);
  require(functions().copy(reinterpret_cast<CuPointer>(to), reinterpret_cast<CuPointer>(from), bytes, stream.handle),
          "copying within the device");
}

}  // namespace strobe::gpu
