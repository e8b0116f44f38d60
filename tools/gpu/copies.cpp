// See copies.hpp.
#include "gpu/copies.hpp"

#include <cstdint>
#include <utility>

namespace strobe::gpu {
namespace {

constexpr std::size_t kAlignment = 256;  // of device memory

}  // namespace

void Copies::add(void* host, std::size_t bytes) {
  const std::size_t skipped = reinterpret_cast<std::uintptr_t>(host) % kAlignment;
  cuda::DeviceMemory memory(stream_.device, skipped + bytes);
  char* device = static_cast<char*>(memory.data()) + skipped;
  stretches_.push_back({static_cast<char*>(host), bytes, std::move(memory), device});
}

void Copies::move(Tensor& tensor) const {
  if (!tensor.given()) return;
  const auto* data = static_cast<char*>(tensor.data);
  for (const Stretch& stretch : stretches_) {
    const bool inside = data >= stretch.host && data < stretch.host + stretch.bytes;
    if (!inside && !(stretch.bytes == 0 && data == stretch.host)) continue;
    tensor.data = stretch.device + (data - stretch.host);
    return;
  }
}

void Copies::move(Attention& attention) const {
  for (Tensor Attention::*tensor : kTensors) move(attention.*tensor);
}

void Copies::upload() {
  for (const Stretch& each : stretches_) {
    if (each.bytes > 0) cuda::copy_to_device(stream_, each.device, each.host, each.bytes);
  }
}

void Copies::download() {
  cuda::synchronise(stream_);
  for (const Stretch& each : stretches_) {
    if (each.bytes > 0) cuda::copy_to_host(stream_, each.host, each.device, each.bytes);
  }
}

}  // namespace strobe::gpu
