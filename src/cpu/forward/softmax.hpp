// The online softmax of a tile (Milakov and Gimelshein, arXiv 1805.02867): scores of one block become weights relative
// to the running maximum, with dropout where asked for.
#pragma once

#include "cpu/forward/products.hpp"
#include "cpu/forward/visibility.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Zeroes the weights of four neighbouring keys (the first one a multiple of four) that dropout does not keep.
inline void drop(const ForwardTask& task, const Tile& tile, int key, int lane, Floats (&weights)[4]) {
  std::int32_t low[kLanes], high[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const std::uint64_t stream = task.dropout_stream + std::uint64_t(tile.head[lane + i]);
    low[i] = std::int32_t(std::uint32_t(stream));
    high[i] = std::int32_t(std::uint32_t(stream >> 32));
  }
  Ints draws[4] = {load_ints(tile.query_index + lane), broadcast_int(key / 4), load_ints(low), load_ints(high)};
  philox(draws, task.dropout_seed);
  const Ints threshold = broadcast_int(std::int32_t(task.dropout_threshold));
  for (int i = 0; i < 4; ++i) weights[i] = select(at_least_unsigned(draws[i], threshold), weights[i], zero());
}

template <class Operand>
STROBE_INLINE void store_weights(float* weights, int key, int lane, const Floats (&p)[4]) {
  for (int i = 0; i < 4; ++i) store(weights + (key + i) * kTileWidth + lane, p[i]);
}
#if STROBE_ISA_ID >= 3
template <class Operand>
STROBE_INLINE void store_weights(std::uint32_t* weights, int key, int lane, const Floats (&p)[4]) {
  for (int i = 0; i < 2; ++i) {
    std::uint32_t* const to = weights + (key / 2 + i) * kTileWidth + lane;
#if STROBE_ISA_ID == 4
    if constexpr (Operand::kPieces > 1) {
      Pairs pieces[Operand::kPieces];
      cut_pairs(p[2 * i], p[2 * i + 1], pieces);
      for (int piece = 0; piece < Operand::kPieces; ++piece) store_pairs(to + piece * kWeightPiece, pieces[piece]);
      continue;
    }
#endif
    store_pairs(to, pack_pairs(p[2 * i], p[2 * i + 1]));
  }
}
#endif

/// The maximum that weights are relative to. On tile registers a rescaling is a pass of its own over the outputs, so an
/// old maximum stays until it is exceeded by much: weights up to 2^8 lose nothing in bf16 or float32.
template <class Operand>
STROBE_INLINE Floats running_maximum(Floats seen, Floats old) {
  if constexpr (!Operand::kInTiles || Operand::kExact) return max(seen, old);
  return select(less(add(old, broadcast(8.0f)), seen), seen, old);
}

/// exp2 as exact as the weights that it makes.
template <class Operand>
STROBE_INLINE Floats exp2_of(Floats x) {
#if STROBE_ISA_ID == 4
  if constexpr (Operand::kInTiles && !Operand::kExact) return exp2_coarse(x);
#endif
  return exp2(x);
}

/// Turns scores into weights exp2(score * factor - max), kept as words of the operand, and updates the tile's maximum
/// and sum. Scaled operands take scores that carry the factor already. `rescale` is what earlier results must be
/// multiplied by. `weights` may be the scores' own memory. Only the first kVectors vectors of the tile count.
template <class Operand, int kVectors>
STROBE_INLINE void soften(const ForwardTask& task, Tile& tile, int block_first, const Visit& visit, float factor,
                          const Floats (&largest)[kTileVectors], const float* scores, typename Operand::Word* weights,
                          Floats (&rescale)[kTileVectors]) {
  const Floats unit = broadcast(factor);
  Floats origin[kVectors], sums[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const Floats old = load(tile.max + v * kLanes);
    const Floats now = running_maximum<Operand>(mul(largest[v], unit), old);
    store(tile.max + v * kLanes, now);
    origin[v] = select(equal(now, broadcast(kMinusInfinity)), zero(), now);  // rows that have seen nothing
    rescale[v] = exp2(sub(old, origin[v]));
    sums[v] = mul(load(tile.sum + v * kLanes), rescale[v]);
  }
  for (int key = visit.first; key < visit.last; key += 4) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Floats p[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const Floats score = load(scores + (key + i) * kTileWidth + v * kLanes);
        if constexpr (!Operand::kScaled) {
          p[i] = exp2_of<Operand>(fma(score, unit, sub(zero(), origin[v])));
        } else {
          p[i] = exp2(sub(score, origin[v]));
        }
      }
      sums[v] = add(sums[v], add(add(p[0], p[1]), add(p[2], p[3])));
      if (task.dropout) drop(task, tile, block_first + key, v * kLanes, p);
      store_weights<Operand>(weights, key, v * kLanes, p);
    }
  }
  for (int v = 0; v < kVectors; ++v) store(tile.sum + v * kLanes, sums[v]);
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
