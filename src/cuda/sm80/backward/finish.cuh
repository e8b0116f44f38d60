// After the backward kernel: dQ from its float32 sums, where key blocks added in any order; and the sink's gradient
// from the tiles' shares, in one order always.
#pragma once

#include "cuda/sm80/backward/prepare.cuh"
#include "cuda/sm80/backward/products.cuh"
#include "cuda/sm80/backward/turns.cuh"

namespace strobe::cuda::sm80 {

template <class C>
STROBE_DEVICE void finish(const BackwardParams& f) {
  const AttentionParams& p = f.attention;
  const int slot = int(blockIdx.x), head = int(blockIdx.y);
  if (f.sink_parts && slot == 0 && threadIdx.x == 0) {
    double total = 0.0;
    for (int n = 0; n < f.slots; ++n) total += double(f.sink_parts[i64(head) * f.slots + n]);
    reinterpret_cast<float*>(f.grad_sink.data)[head * f.grad_sink.stride] = float(total);
  }
  if (f.turns != nullptr || f.grad_query.data == nullptr) return;
  int b, tile, stored;
  if (!find_slot(f, slot, b, tile, stored) || b == p.batch) return;
  const Sequence s = sequence_of(p, b);
  if (tile * C::kQueryTile >= s.queries) return;
  const Visit visit{head, tile, 1, true};
  for (int part = 0; part < C::kGradParts; ++part) {
    typename C::GradQuery g;
    clear(g);
    float* const sums = sums_of<C>(f, slot - tile, visit, part, int(threadIdx.x));
    load_sums<C>(sums, g);
    write_grad_query<C>(f, s, visit, part, int(threadIdx.x), sums, g);
  }
}

}  // namespace strobe::cuda::sm80
