// The online softmax's running pair (Milakov and Gimelshein, arXiv 1805.02867, section 3) and how threads combine
// theirs; where rows lie.
#pragma once

#include "cuda/device/storage.cuh"
#include "cuda/sm80/softmax/params.hpp"

namespace strobe::cuda::sm80 {

STROBE_DEVICE char* row_address(const SoftmaxParams& p, const SoftmaxOperand& operand, i64 row) {
  i64 offset = 0;
#pragma unroll
  for (int axis = 3; axis > 0; --axis) {
    if (p.shape[axis] == 1) continue;
    const i64 next = quotient(row, p.shape[axis]);
    offset += (row - next * p.shape[axis]) * operand.strides[axis];
    row = next;
  }
  return operand.data + (offset + row * operand.strides[0]) * size_of(operand.type);
}

/// sum = sum of exp(x - largest) over what was seen. Before anything but -inf was seen, weights are taken from 0.
struct Online {
  float largest = minus_infinity(), sum = 0.0f;

  STROBE_DEVICE float origin() const { return largest == minus_infinity() ? 0.0f : largest; }
  STROBE_DEVICE float weight(float x) const { return ptx::ex2((x - origin()) * kLog2E); }
  /// `larger` is at least the present maximum.
  STROBE_DEVICE void raise(float larger) {
    const float old = largest;
    largest = larger;
    if (old != larger) sum *= weight(old);
  }
  STROBE_DEVICE void add(const Online& other) {
    const float theirs = other.largest;
    raise(fmaxf(largest, theirs));
    sum += other.sum * weight(theirs);
  }
  /// By which weights become probabilities; a row of only -inf gives zeros.
  STROBE_DEVICE float factor() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
};

STROBE_DEVICE void add(float& a, float b) { a += b; }
STROBE_DEVICE void add(Online& a, const Online& b) { a.add(b); }
STROBE_DEVICE float from_lane(float x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
STROBE_DEVICE Online from_lane(const Online& x, int mask) {
  return {__shfl_xor_sync(~0u, x.largest, mask), __shfl_xor_sync(~0u, x.sum, mask)};
}

/// The sum over a row's `threads` neighbouring threads, a power of two, for each of them. More than a warp's: all of
/// the block. Every thread of the block comes here, once a kernel.
template <class T>
STROBE_DEVICE void combine(T& mine, int threads) {
  for (int mask = smaller(threads, kWarpLanes) / 2; mask > 0; mask /= 2) add(mine, from_lane(mine, mask));
  if (threads <= kWarpLanes) return;
  __shared__ char memory[kWarpLanes * sizeof(T)] __attribute__((aligned(8)));
  T* const warps = reinterpret_cast<T*>(memory);
  if (lane_index() == 0) warps[warp_index()] = mine;
  __syncthreads();
  mine = lane_index() < threads / kWarpLanes ? warps[lane_index()] : T{};
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) add(mine, from_lane(mine, mask));
}

}  // namespace strobe::cuda::sm80
