// Runs a case on a GPU: its tensors' whole storages, with poison and guards, are copied there, the library's checks see
// the copies, and everything is copied back to where the judge looks.
#pragma once

#include <string>

#include "cases/instance.hpp"
#include "cuda/decision.hpp"
#include "gpu/copies.hpp"

namespace strobe::cases {

/// What lies around a tensor on the GPU: the guards and poison of the host's storage, or nothing, so that a memory
/// checker sees every access beyond it.
enum class Room { kGuarded, kTight };

struct CudaInstance {
  /// Copies the host's instance, which must outlive this.
  CudaInstance(Instance& host, cuda::Stream stream, Room room = Room::kGuarded);

  /// One call of the public API, in the order of the stream.
  void call();

  // The host's tensors, with device pointers.
  Attention attention;
  ForwardOutputs outputs;
  BackwardInputs upstream;
  Gradients gradients;
  check::Checked checked;  // by the library's rules for devices
  gpu::Copies copies;
  Execution execution;
};

/// Copies the instance to the stream's device, runs the decision there past the public entry points, and copies back.
/// The workspace holds poison before the call and guards around it. Returns what went wrong around the kernel, or "".
std::string run_on_cuda(Instance& instance, const cuda::CudaDecision& decision, cuda::Stream stream,
                        Room room = Room::kGuarded);

}  // namespace strobe::cases
