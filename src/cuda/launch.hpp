// How kernels get onto a GPU, as a kernel family sees it: a Launcher, made for one call on one stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/device.hpp"
#include "cuda/kernel_key.hpp"
#include "cuda/params.hpp"

namespace strobe::cuda {

/// Where a call runs: a device, and a CUstream (or cudaStream_t) of its primary context or of the context that is
/// current in the calling thread. Null is the default stream.
struct Stream {
  int device = 0;
  void* handle = nullptr;
};

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

/// When a kernel starts: after all that the stream has before it, or when the kernel launched just before it lets go of
/// the GPU bit by bit (ptx::griddepcontrol_launch_dependents); it waits for that one itself (griddepcontrol_wait).
enum class Start { kInOrder, kEarly };

/// A [dims, rows, heads, batches] tensor of 16-bit elements, of which boxes of 64 dims, `box_rows` rows and `box_heads`
/// heads are copied at a time, into panels of 128-byte rows under the 128-byte swizzle.
struct TensorExtents {
  long long dims, rows, heads, batches;
  int box_rows, box_heads = 1;
};

/// Describes a tensor of regular rows (Problem::regular_rows) to the copy engine. An empty one stays a blank map.
/// @throws Error if the driver refuses.
TensorMap tensor_map_of(const RowsView& view, const TensorExtents& extents);
/// The same as [dims, heads, rows, batches]: boxes have the heads of a row side by side.
TensorMap heads_first_map_of(RowsView view, TensorExtents extents);

/// Puts kernels and memory operations on a stream, in order. Allocates nothing, compiles nothing when the kernels were
/// prepared, waits for nothing: all of it may be captured into a CUDA graph. Makes the right context current for as
/// long as it lives, so it lives on the stack of one thread.
class Launcher {
 public:
  /// @throws Error if there is no such device, naming what is missing.
  explicit Launcher(Stream stream);
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  /// Starts grid blocks of `threads` threads with `shared_bytes` of dynamic shared memory. `params` is the kernel's
  /// single __grid_constant__ struct, copied before this returns.
  /// An early start is a wish: drivers that cannot capture it start the kernel in order.
  /// @throws Error if the kernel is not there and cannot be compiled, or the driver refuses.
  void launch(const KernelKey& key, Grid grid, unsigned threads, unsigned shared_bytes, const void* params,
              Start start = Start::kInOrder);

  /// Sets `bytes` of device memory to zero.
  void clear(void* memory, std::size_t bytes);

  /// Finds or compiles the kernel now, so that launching it later does not.
  void prepare(const KernelKey& key);

  /// 256 bytes for what the blocks of one launch count together (device/shared_count.cuh): the stream's launches take
  /// turns with them. Null where the stream has none, as when it is captured into a graph.
  void* counts();

  /// Memory that belongs to the stream: what was launched before release may use it, whatever runs meanwhile.
  void* allocate(std::size_t bytes);
  void release(void* memory) noexcept;

  const CudaDevice& device() const { return *device_; }

 private:
  const CudaDevice* device_;
  void* stream_;
  unsigned long long context_id_ = 0;
  bool pushed_ = false;
  void pop() noexcept;
};

/// A word that differs from launch to launch, and that memory does not hold by chance: what tells a launch's counts
/// from what is left of others (device/shared_count.cuh).
std::uint64_t fresh_tag();

/// Stream-ordered memory for one call; none for 0 bytes.
class StreamMemory {
 public:
  StreamMemory(Launcher& launcher, std::size_t bytes)
      : launcher_(launcher), data_(bytes > 0 ? launcher.allocate(bytes) : nullptr) {}
  ~StreamMemory() {
    if (data_ != nullptr) launcher_.release(data_);
  }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  void* data() const { return data_; }

 private:
  Launcher& launcher_;
  void* data_;
};

}  // namespace strobe::cuda
