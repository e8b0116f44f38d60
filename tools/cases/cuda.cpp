// See cuda.hpp.
#include "cases/cuda.hpp"

#include <algorithm>

#include "cuda/cuda.hpp"

namespace strobe::cases {
namespace {

constexpr std::size_t kGuard = 512;  // around the workspace, a multiple of its alignment

}  // namespace

CudaInstance::CudaInstance(Instance& host, cuda::Stream stream, Room room)
    : attention(host.attention),
      outputs(host.outputs),
      upstream(host.upstream),
      gradients(host.gradients),
      copies(stream),
      execution{.device = {.kind = DeviceKind::kCuda, .index = stream.device}, .stream = stream.handle} {
  for (auto* storages : {&host.inputs, &host.results}) {
    for (Storage& storage : *storages) {
      const std::span<unsigned char> bytes = room == Room::kTight ? storage.span() : storage.bytes();
      copies.add(bytes.data(), bytes.size());
    }
  }
  copies.move(attention);
  for (Tensor* tensor :
       {&outputs.output, &outputs.lse, &upstream.output, &upstream.lse, &upstream.grad_output, &upstream.grad_lse,
        &gradients.query, &gradients.key, &gradients.value, &gradients.bias, &gradients.sink}) {
    copies.move(*tensor);
  }
  checked = host.description.pass == Pass::kForward
                ? check::forward(attention, outputs, check::Data::kOnDevice)
                : check::backward(attention, upstream, gradients, check::Data::kOnDevice);
  copies.upload();
}

void CudaInstance::call() {
  if (checked.problem.pass == Pass::kForward) {
    forward(attention, outputs, execution);
  } else {
    backward(attention, upstream, gradients, execution);
  }
}

std::string run_on_cuda(Instance& instance, const cuda::CudaDecision& decision, cuda::Stream stream, Room room) {
  CudaInstance copy(instance, stream, room);
  if (room == Room::kTight) {
    const cuda::DeviceMemory workspace(stream.device, decision.workspace_bytes);
    cuda::run(copy.checked.problem, copy.checked.buffers, decision, stream, workspace.data());
    copy.copies.download();
    return "";
  }
  const cuda::DeviceMemory workspace(stream.device, decision.workspace_bytes + 2 * kGuard);
  auto* inner = static_cast<char*>(workspace.data()) + kGuard;
  cuda::fill(stream, workspace.data(), kPoison, workspace.bytes());
  cuda::run(copy.checked.problem, copy.checked.buffers, decision, stream, inner);
  copy.copies.download();
  for (const char* guard : {inner - kGuard, inner + decision.workspace_bytes}) {
    unsigned char bytes[kGuard];
    cuda::copy_to_host(stream, bytes, guard, kGuard);
    if (std::any_of(bytes, bytes + kGuard, [](unsigned char byte) { return byte != kPoison; })) {
      return "wrote outside its workspace";
    }
  }
  return "";
}

}  // namespace strobe::cases
