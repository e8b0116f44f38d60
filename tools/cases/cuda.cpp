// See cuda.hpp.
#include "cases/cuda.hpp"

#include <algorithm>
#include <cstdint>

#include "cuda/cuda.hpp"

namespace strobe::cases {
namespace {

// Copies keep their addresses modulo this, so that kernels find the alignment that the case is about.
constexpr std::size_t kAlignment = 256;
constexpr std::size_t kGuard = 512;  // around the workspace, a multiple of its alignment

}  // namespace

CudaInstance::CudaInstance(Instance& host, cuda::Stream stream)
    : attention(host.attention),
      outputs(host.outputs),
      upstream(host.upstream),
      gradients(host.gradients),
      stream_(stream) {
  for (Storage& storage : host.inputs) add(storage);
  for (Storage& storage : host.results) add(storage);
  Attention& a = attention;
  for (Tensor* tensor : {&a.query,
                         &a.key,
                         &a.value,
                         &a.query_offsets,
                         &a.key_offsets,
                         &a.query_lengths,
                         &a.key_lengths,
                         &a.bias,
                         &a.alibi_slopes,
                         &a.sink,
                         &a.mask,
                         &a.prefix_lengths,
                         &a.block_mask,
                         &a.page_table,
                         &a.new_key,
                         &a.new_value,
                         &a.rotary_cos,
                         &a.rotary_sin,
                         &a.query_descale,
                         &a.key_descale,
                         &a.value_descale,
                         &a.cache_batch_index,
                         &outputs.lse,
                         &outputs.output,
                         &a.key_documents,
                         &upstream.output,
                         &upstream.lse,
                         &gradients.query,
                         &gradients.key,
                         &gradients.value,
                         &a.query_documents,
                         &upstream.grad_output,
                         &upstream.grad_lse,
                         &gradients.bias,
                         &gradients.sink}) {
    move(*tensor);
  }
  checked = host.description.pass == Pass::kForward
                ? check::forward(attention, outputs, check::Data::kOnDevice)
                : check::backward(attention, upstream, gradients, check::Data::kOnDevice);
}

void CudaInstance::add(Storage& storage) {
  const std::span<unsigned char> bytes = storage.bytes();
  cuda::DeviceMemory memory(stream_.device, bytes.size() + kAlignment);
  char* data = static_cast<char*>(memory.data()) + reinterpret_cast<std::uintptr_t>(bytes.data()) % kAlignment;
  copies_.push_back({&storage, std::move(memory), data});
}

void CudaInstance::move(Tensor& tensor) const {
  if (!tensor.given()) return;
  const auto* data = static_cast<unsigned char*>(tensor.data);
  for (const Copy& copy : copies_) {
    const std::span<unsigned char> bytes = copy.storage->bytes();
    if (data < bytes.data() || data >= bytes.data() + bytes.size()) continue;
    tensor.data = copy.data + (data - bytes.data());
    return;
  }
}

void CudaInstance::upload() {
  for (const Copy& copy : copies_) {
    cuda::copy_to_device(stream_, copy.data, copy.storage->bytes().data(), copy.storage->bytes().size());
  }
}

void CudaInstance::download() {
  cuda::synchronise(stream_);
  for (const Copy& copy : copies_) {
    cuda::copy_to_host(stream_, copy.storage->bytes().data(), copy.data, copy.storage->bytes().size());
  }
}

std::string run_on_cuda(Instance& instance, const cuda::CudaDecision& decision, cuda::Stream stream) {
  CudaInstance copy(instance, stream);
  copy.upload();
  const cuda::DeviceMemory workspace(stream.device, decision.workspace_bytes + 2 * kGuard);
  auto* inner = static_cast<char*>(workspace.data()) + kGuard;
  cuda::fill(stream, workspace.data(), kPoison, workspace.bytes());
  cuda::run(copy.checked.problem, copy.checked.buffers, decision, stream, inner);
  copy.download();
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
