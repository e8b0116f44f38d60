// Runs a case on a GPU: its tensors' whole storages, with poison and guards, are copied there at the same alignment,
// the library's checks and plans see the copies, and everything is copied back to where the judge looks.
#pragma once

#include <deque>
#include <string>

#include "cases/instance.hpp"
#include "cuda/decision.hpp"
#include "cuda/host/memory.hpp"

namespace strobe::cases {

class CudaInstance {
 public:
  /// Allocates; nothing is copied yet. `host` must outlive this.
  CudaInstance(Instance& host, cuda::Stream stream);

  void upload();
  /// Waits for the stream. @throws Error if a kernel failed.
  void download();

  // The host's tensors, with device pointers.
  Attention attention;
  ForwardOutputs outputs;
  BackwardInputs upstream;
  Gradients gradients;
  check::Checked checked;  // by the library's rules for devices

 private:
  struct Copy {
    Storage* storage;
    cuda::DeviceMemory memory;
    char* data;  // in the memory
  };
  void add(Storage& storage);
  void move(Tensor& tensor) const;

  cuda::Stream stream_;
  std::deque<Copy> copies_;
};

/// Copies the instance to the stream's device, runs the decision there past the public entry points, and copies back.
/// The workspace holds poison before the call and guards around it. Returns what went wrong around the kernel, or "".
std::string run_on_cuda(Instance& instance, const cuda::CudaDecision& decision, cuda::Stream stream);

}  // namespace strobe::cases
