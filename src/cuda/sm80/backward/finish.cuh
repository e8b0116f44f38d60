// After the backward kernel, where key blocks added in any order: dQ from its float32 sums.
#pragma once

#include "cuda/sm80/backward/prepare.cuh"
#include "cuda/sm80/backward/products.cuh"
#include "cuda/sm80/backward/turns.cuh"

namespace strobe::cuda::sm80 {

template <class C>
STROBE_DEVICE void finish(const BackwardParams& f) {
  const AttentionParams& p = f.attention;
  const int slot = int(blockIdx.x), head = int(blockIdx.y);
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
