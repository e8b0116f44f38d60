// The gradient of the bias: dBias = sum of P (dP - delta) over whatever axes the bias broadcasts along. A kernel of its
// own, which works S and dP out once more: every element is summed by one block in one order, needs no memory besides
// the gradient itself, and the backward kernel knows nothing of it. A block takes a tile of the bias; along a broadcast
// axis it passes over all batches, heads, query tiles or key blocks.
#pragma once

#include "cuda/sm80/backward/products.cuh"
#include "cuda/sm80/backward/visits.cuh"
#include "cuda/sm80/forward/softmax.cuh"

namespace strobe::cuda::sm80 {

extern __shared__ __align__(128) char shared_memory[];

template <int kType, int kHeadDim_, int kValueDim_, int kFeatures_, int kArchitecture>
struct BiasConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr int kHeadDim = kHeadDim_, kValueDim = kValueDim_, kFeatures = kFeatures_;
  static constexpr BiasTile kTile = bias_tile(Element::kBytes, kHeadDim, kValueDim, kArchitecture);
  static constexpr int kWarps = kTile.warps, kThreads = kTile.threads(), kRows = kTile.rows(), kRowTiles = 1;
  static constexpr int kKeys = kTile.keys, kKeyTiles = kKeys / 8;
  using QueryTile = Tile<Element, kRows, kHeadDim>;
  using GradOutputTile = Tile<Element, kRows, kValueDim>;
  using KeyTile = Tile<Element, kKeys, kHeadDim>;
  using ValueTile = Tile<Element, kKeys, kValueDim>;
  static constexpr int kGradOutputsAt = QueryTile::kBytes, kKeysAt = kGradOutputsAt + GradOutputTile::kBytes;
  static constexpr int kValuesAt = kKeysAt + KeyTile::kBytes;
  static_assert(kValuesAt + ValueTile::kBytes == bias_shared_bytes(kTile, Element::kBytes, kHeadDim, kValueDim));
  using Scores = float[kRowTiles][kKeyTiles][4];
};

/// load_rounded_tile, out of line: it seldom runs, and inlined it would cost the rest of the kernel registers.
template <class T, int kThreads>
__device__ __noinline__ void load_rounded(u32 tile, const char* data, i64 row_bytes, RowWindow window, int dims) {
  load_rounded_tile<T, kThreads>(tile, {data, row_bytes}, window, dims);
}

/// [first, last)
struct Span {
  int first, last;
};

template <class C>
struct BiasTask {
  using Element = typename C::Element;

  const BackwardParams& f;
  const AttentionParams& p;
  int last_row, last_key;  // the bias ends before them
  u32 memory;

  template <class T>
  STROBE_DEVICE void load(u32 tile, const RowsView& view, const char* data, RowWindow window, int dims) const {
    if constexpr (Element::kBytes == 2) {  // gradients come in the outputs' type
      if (view.type == strobe::cuda::Element::kFloat32) {
        return load_rounded<T, C::kThreads>(tile, data, view.row_stride * 4, window, dims);
      }
    }
    load_scattered_tile<T, C::kThreads>(tile, RowAddress{data, view.row_stride * Element::kBytes}, window, dims,
                                        view.vector_bytes == kChunkBytes);
  }

  /// Adds dS of one head's tile to `sums`. The tile's queries are in shared memory.
  STROBE_DEVICE void add(const Sequence& s, int head, const TileView& view, int first_key,
                         typename C::Scores& sums) const {
    const int kv_head = head / p.group, lane = lane_index(), warp_row = warp_index() * 16;
    const RowWindow window{first_key, view.prefix > 0 ? 0 : view.begin, larger(view.end, view.prefix)};
    __syncthreads();  // everyone has left the keys before
    load<typename C::KeyTile>(memory + C::kKeysAt, p.key, key_rows(p, p.key, s, kv_head).data, window, p.head_dim);
    load<typename C::ValueTile>(memory + C::kValuesAt, p.value, key_rows(p, p.value, s, kv_head).data, window,
                                p.value_dim);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    typename C::Scores scores, grads;
    multiply_rows<Element, typename C::QueryTile, typename C::KeyTile>(lane, memory, warp_row, memory + C::kKeysAt,
                                                                       scores);
    multiply_rows<Element, typename C::GradOutputTile, typename C::ValueTile>(lane, memory + C::kGradOutputsAt,
                                                                              warp_row, memory + C::kValuesAt, grads);
    if constexpr ((C::kFeatures & kDropout) != 0) drop<C>(p, s, head, view.first_row + warp_row, first_key, grads);
    const int row = view.first_row + warp_row + lane / 4;
    const ScoreRow rows[2] = {score_row<C::kFeatures>(p, s, head, row), score_row<C::kFeatures>(p, s, head, row + 8)};
    finish_scores<Element, C::kFeatures, C::kKeyTiles>(p, s, view.prefix, rows, first_key, false, scores[0]);
    float lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = row + 8 * half, slot = first_slot(f, s) + i / f.query_tile;
      const float* const facts = f.facts + (i64(head) * f.slots + slot) * f.fact_floats + i % f.query_tile;
      lse[half] = i < view.last_row ? facts[0] : -minus_infinity();
      delta[half] = i < view.last_row ? facts[f.query_tile] : 0.0f;
    }
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float weight = ptx::ex2(fmaf(scores[0][t][e], kLog2E, -lse[e / 2]));
        const bool hidden = scores[0][t][e] == minus_infinity() || lse[e / 2] == -minus_infinity();
        sums[0][t][e] += hidden ? 0.0f : weight * (grads[0][t][e] * p.dropout_scale - delta[e / 2]);
      }
    }
  }

  /// Adds all of one head that falls on the bias's tile.
  STROBE_DEVICE void add_head(const Sequence& s, int head, Span tiles, Span blocks, typename C::Scores& sums) const {
    for (int tile = tiles.first; tile < tiles.last && tile * C::kRows < s.queries; ++tile) {
      const TileView view = view_of(p, s, tile * C::kRows, C::kRows);
      const RowWindow window{view.first_row, view.first_row, view.last_row};
      __syncthreads();  // everyone has left the queries before
      load<typename C::QueryTile>(memory, p.query, query_rows(p, p.query, s, head).data, window, p.head_dim);
      load<typename C::GradOutputTile>(memory + C::kGradOutputsAt, f.grad_output,
                                       query_rows(p, f.grad_output, s, head).data, window, p.value_dim);
      for (int block = blocks.first; block < blocks.last && block * C::kKeys < s.keys; ++block) {
        const int first = block * C::kKeys, last = smaller(first + C::kKeys, s.keys);
        if (!reaches(view, first, last)) continue;
        if (p.block_mask.data && !block_mask_keeps(p, s, head, view, first, last)) continue;
        add(s, head, view, first, sums);
      }
    }
  }

  /// Writes the tile's sums, over rows and keys too where the bias has only one of them.
  STROBE_DEVICE void write(char* to, int tile, int block, typename C::Scores& sums) const {
    __shared__ float parts[C::kWarps][C::kKeys];
    const ScoresView& view = f.grad_bias;
    const int lane = lane_index(), warp = warp_index();
    const bool one_row = f.bias_rows == 1, one_key = f.bias_keys == 1;
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& sum = sums[0][t][e];
        if (one_row) {
          if (e >= 2) continue;
          sum += sums[0][t][e + 2];
#pragma unroll
          for (int n = 4; n < kWarpLanes; n *= 2) sum += __shfl_xor_sync(~0u, sum, n);
          if (lane < 4) parts[warp][8 * t + 2 * lane + e] = sum;
        } else if (!one_key) {
          const int i = tile * C::kRows + 16 * warp + 8 * (e / 2) + lane / 4;
          const int j = block * C::kKeys + 8 * t + 2 * (lane % 4) + e % 2;
          if (i < last_row && j < last_key) {
            store_float(to, view.type, i * view.row_stride + j * view.column_stride, sum);
          }
        }
      }
    }
    if (one_row) {
      __syncthreads();
      float total = 0.0f;
      for (int n = int(threadIdx.x); n < C::kKeys; n += C::kThreads) {
        float sum = parts[0][n];
        for (int other = 1; other < C::kWarps; ++other) sum += parts[other][n];
        const int j = block * C::kKeys + n;
        if (one_key)
          parts[0][n] = sum;
        else if (j < last_key)
          store_float(to, view.type, j * view.column_stride, sum);
      }
      __syncthreads();
      if (!one_key || threadIdx.x != 0) return;
      for (int n = 0; n < C::kKeys; ++n) total += parts[0][n];
      store_float(to, view.type, 0, total);
    } else if (one_key) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float total = 0.0f;
#pragma unroll
        for (int t = 0; t < C::kKeyTiles; ++t) total += sums[0][t][2 * half] + sums[0][t][2 * half + 1];
        total = sum_in_row(total);
        const int i = tile * C::kRows + 16 * warp + 8 * half + lane / 4;
        if (lane % 4 == 0 && i < last_row) store_float(to, view.type, i * view.row_stride, total);
      }
    }
  }
};

/// Rows of the longest packed sequence.
STROBE_DEVICE int longest(const VectorView& offsets, int batch, int length) {
  int most = 0;
  for (int b = 0; b < batch; ++b) {
    const int first = clamped(read_int(offsets, b), 0, length);
    most = larger(most, clamped(read_int(offsets, b + 1), first, length) - first);
  }
  return most;
}

template <class C>
STROBE_DEVICE void grad_bias(const BackwardParams& f) {
  const AttentionParams& p = f.attention;
  int rows = f.bias_rows, keys = f.bias_keys;
  if (p.packed_queries && rows > 1) rows = longest(p.query_offsets, p.batch, p.query_length);
  if (p.packed_keys && keys > 1) keys = longest(p.key_offsets, p.batch, p.key_length);
  const BiasTask<C> task{f, p, rows, keys, ptx::shared_address(shared_memory)};
  const int block = int(blockIdx.x), tile = int(blockIdx.y), head = int(blockIdx.z) % f.bias_heads;
  const int b = int(blockIdx.z) / f.bias_heads, many = 1 << 29;
  if (tile * C::kRows >= rows || block * C::kKeys >= keys) return;
  const Span batches = f.bias_batches == 1 ? Span{0, p.batch} : Span{b, b + 1};
  const Span heads = f.bias_heads == 1 ? Span{0, p.query_heads} : Span{head, head + 1};
  const Span tiles = f.bias_rows == 1 ? Span{0, many} : Span{tile, tile + 1};
  const Span blocks = f.bias_keys == 1 ? Span{0, many} : Span{block, block + 1};
  typename C::Scores sums;
  clear(sums);
  for (int n = batches.first; n < batches.last; ++n) {
    const Sequence s = sequence_of(p, n);
    for (int h = heads.first; h < heads.last; ++h) task.add_head(s, h, tiles, blocks, sums);
  }
  const i64 place = b * f.grad_bias.batch_stride + head * f.grad_bias.head_stride;
  task.write(f.grad_bias.data + place * size_of(f.grad_bias.type), tile, block, sums);
}

}  // namespace strobe::cuda::sm80
