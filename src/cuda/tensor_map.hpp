// The driver's CUtensorMap: how the tensor copy engine finds boxes of a tensor. Opaque to us; made by the host, read by
// kernels.
#pragma once

namespace strobe::cuda {

struct alignas(64) TensorMap {
  unsigned long long words[16];
};

}  // namespace strobe::cuda
