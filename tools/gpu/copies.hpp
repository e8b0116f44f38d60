// Tensors of the host copied to a GPU, whole stretches of memory at a time, so that views keep their strides, gaps and
// what they share.
#pragma once

#include <cstddef>
#include <deque>

#include "cuda/host/memory.hpp"
#include "strobe/attention.hpp"

namespace strobe::gpu {

class Copies {
 public:
  explicit Copies(cuda::Stream stream) : stream_(stream) {}

  /// Takes device memory for a stretch of host memory, which must outlive this. It ends where the copy ends, and the
  /// copy's addresses are the host's modulo 256, so that kernels find the alignment that there was.
  void add(void* host, std::size_t bytes);
  /// Points the tensor to its copy. Tensors that lie in no stretch stay.
  void move(Tensor& tensor) const;
  void move(Attention& attention) const;

  void upload();
  /// Waits for the stream. @throws Error if a kernel failed.
  void download();

 private:
  struct Stretch {
    char* host;
    std::size_t bytes;
    cuda::DeviceMemory memory;
    char* device;  // in the memory
  };
  cuda::Stream stream_;
  std::deque<Stretch> stretches_;
};

/// Every tensor of a problem, given or not.
inline constexpr Tensor Attention::*kTensors[] = {
    &Attention::query,         &Attention::key,           &Attention::value,          &Attention::query_offsets,
    &Attention::key_offsets,   &Attention::query_lengths, &Attention::key_lengths,    &Attention::bias,
    &Attention::alibi_slopes,  &Attention::sink,          &Attention::prefix_lengths, &Attention::query_documents,
    &Attention::key_documents, &Attention::mask,          &Attention::block_mask,     &Attention::cache_batch_index,
    &Attention::page_table,    &Attention::new_key,       &Attention::new_value,      &Attention::rotary_cos,
    &Attention::rotary_sin,    &Attention::query_descale, &Attention::key_descale,    &Attention::value_descale};

}  // namespace strobe::gpu
