// Values that are infinite or NaN. A matrix product cannot leave out a key that one row sees and another does not: a
// weight of zero times NaN is NaN. So when a tile's result is not finite, the kernel passes over its keys once more
// with such values cleared, and afterwards adds them, one by one, to the rows that do see them. Data without them never
// comes here; speed does not matter.
#pragma once

#include "cuda/sm80/forward/config.cuh"

namespace strobe::cuda::sm80 {

template <class C>
STROBE_DEVICE bool any_not_finite(const typename C::Outputs& o) {
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};  // zero, unless something is infinite or NaN
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[e] = fmaf(o[r][t][e], 0.0f, sums[e]);
    }
  }
  return !(sums[0] + sums[1] + sums[2] + sums[3] == 0.0f);
}

/// Clears infinite and NaN elements of a tile, which `threads` threads share. They wait for each other afterwards.
template <class T>
STROBE_DEVICE void clear_suspects(u32 tile, int thread, int threads) {
#pragma unroll 1
  for (int n = thread * 4; n < T::kBytes; n += threads * 4) {
    const u32 word = ptx::ld_shared_4(tile + n), finite = finite_elements<typename T::Element>(word);
    if (finite != word) ptx::st_shared_4(tile + n, finite);
  }
}

/// Adds infinite and NaN values to the outputs of those rows of a tile that see them. The tile's finite outputs are in
/// memory. Finds out for itself where the tile is, so that others need not keep that in memory.
template <class C>
__device__ __noinline__ void add_suspects(const AttentionParams& p, int batch, int head, int first_row) {
  const Sequence s = sequence_of(p, batch);
  const TileView view = view_of(p, s, first_row, C::kQueryTile);
  const RowAddress output = query_rows(p, p.output, s, head);
  const KeyAddress values = key_rows(p, p.value, s, head / p.group);
  const u64 stream = p.dropout_offset + u64(i64(s.batch) * p.query_heads + head);
  const int end = larger(view.end, view.prefix);
  __syncthreads();
  for (int j = view.prefix > 0 ? 0 : view.begin; j < end; ++j) {
    for (int d = int(threadIdx.x); d < p.value_dim; d += C::kThreads) {
      const float value = load_float_of<typename C::Element>(values(j), p.value.type, d);
      if (is_finite(value)) continue;
      for (int i = view.first_row; i < view.last_row; ++i) {
        const ScoreRow row = score_row<C::kFeatures>(p, s, head, i);
        if (!sees(row.visible, view.prefix, j) || !data_shows<C::kFeatures>(p, s, row, j)) continue;
        if ((C::kFeatures & kDropout) != 0 && !keeps(p, stream, i, j)) continue;
        char* const to = const_cast<char*>(output(i));
        store_float(to, p.output.type, d, load_float(to, p.output.type, d) + value);
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
