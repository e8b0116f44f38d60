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

STROBE_INLINE void store_weights(float* weights, int key, int lane, const Floats (&p)[4]) {
  for (int i = 0; i < 4; ++i) store(weights + (key + i) * kTileWidth + lane, p[i]);
}
#if STROBE_ISA_ID >= 3
STROBE_INLINE void store_weights(std::uint32_t* weights, int key, int lane, const Floats (&p)[4]) {
  for (int i = 0; i < 2; ++i) {
    store_pairs(weights + (key / 2 + i) * kTileWidth + lane, pack_pairs(p[2 * i], p[2 * i + 1]));
  }
}
#endif

/// Turns scores into weights exp2(score * factor - max), kept as words of the operand, and updates the tile's maximum
/// and sum; a few keys at a time, so that other work can go on in between. Float operands take scores that carry the
/// factor already. `weights` may be the scores' own memory.
template <class Operand>
class Softening {
  using Word = typename Operand::Word;

 public:
  STROBE_INLINE Softening(const ForwardTask& task, Tile& tile, int block_first, const Visit& visit, float factor,
                          const Floats (&largest)[kTileVectors], const float* scores, Word* weights)
      : task_(task),
        tile_(tile),
        block_first_(block_first),
        key_(visit.first),
        last_(visit.last),
        unit_(broadcast(factor)),
        scores_(scores),
        weights_(weights) {
    for (int v = 0; v < kTileVectors; ++v) {
      const Floats old = load(tile.max + v * kLanes);
      const Floats now = origin_after(mul(largest[v], unit_), old);
      store(tile.max + v * kLanes, now);
      origin_[v] = select(equal(now, broadcast(kMinusInfinity)), zero(), now);  // rows that have seen nothing
      rescale_[v] = exp2(sub(old, origin_[v]));
      sums_[v] = mul(load(tile.sum + v * kLanes), rescale_[v]);
    }
  }

  /// The weights of four more keys, if there are any.
  STROBE_INLINE void step() {
    if (key_ >= last_) return;
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      Floats p[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const Floats score = load(scores_ + (key_ + i) * kTileWidth + v * kLanes);
        if constexpr (Operand::kPerWord == 2) {
          p[i] = exp2_of_weight(fma(score, unit_, sub(zero(), origin_[v])));
        } else {
          p[i] = exp2(sub(score, origin_[v]));
        }
      }
      sums_[v] = add(sums_[v], add(add(p[0], p[1]), add(p[2], p[3])));
      if (task_.dropout) drop(task_, tile_, block_first_ + key_, v * kLanes, p);
      store_weights(weights_, key_, v * kLanes, p);
    }
    key_ += 4;
  }

  /// What is left to do.
  STROBE_INLINE void finish() {
    while (key_ < last_) step();
    for (int v = 0; v < kTileVectors; ++v) store(tile_.sum + v * kLanes, sums_[v]);
  }

  /// What earlier results must be multiplied by.
  const Floats (&rescale() const)[kTileVectors] { return rescale_; }

 private:
  /// The maximum that weights are relative to. On tile registers a rescaling is a pass of its own over the outputs, so
  /// an old maximum stays until it is exceeded by so much: weights up to 2^8 lose nothing in bf16 or float32.
  static STROBE_INLINE Floats origin_after(Floats seen, Floats old) {
    if constexpr (!Operand::kInTiles) return max(seen, old);
    return select(less(add(old, broadcast(8.0f)), seen), seen, old);
  }

  static STROBE_INLINE Floats exp2_of_weight(Floats x) {
#if STROBE_ISA_ID == 4
    return exp2_coarse(x);
#else
    return exp2(x);
#endif
  }

  const ForwardTask& task_;
  Tile& tile_;
  const int block_first_;
  int key_;
  const int last_;
  const Floats unit_;
  const float* const scores_;
  Word* const weights_;
  Floats origin_[kTileVectors], sums_[kTileVectors], rescale_[kTileVectors];
};

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
