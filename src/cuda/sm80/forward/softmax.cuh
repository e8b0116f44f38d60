// The online softmax of a warp's rows (FlashAttention-2, arXiv 2307.08691, algorithm 1), with two changes for 16-bit
// types. The origin of the exponentials follows the maximum only when that has grown by more than kOriginSlack in
// powers of two, so outputs are seldom rescaled. And where a row has an origin already, weights may be taken against it
// without looking for the maximum at all, as long as they stay in the range of their type: a later look at their sums
// tells.
#pragma once

#include "cuda/device/lanes.cuh"
#include "cuda/device/philox.cuh"
#include "cuda/sm80/forward/config.cuh"

namespace strobe::cuda::sm80 {

/// A warp that shares its rows with no other; the other case is in exchange.cuh.
struct Alone {
  static constexpr bool kPaired = false;
};

/// State of the rows that a thread holds: [row tile][upper or lower half].
template <class C>
struct Softmax {
  float origin[C::kRowTiles][2];  // in the scores' units; -inf while a row has seen nothing
  float sum[C::kRowTiles][2];     // of this thread's columns

  STROBE_DEVICE void start() {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      origin[r][0] = origin[r][1] = minus_infinity();
      sum[r][0] = sum[r][1] = 0.0f;
    }
  }

  /// Whether every row of the warp has seen a key, and `besides` holds for every lane.
  STROBE_DEVICE bool settled(bool besides) const {
    bool all = besides;
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      all &= origin[r][0] != minus_infinity() && origin[r][1] != minus_infinity();
    }
    return __all_sync(~0u, all);
  }

  /// Lets the origins follow the scores' maxima. `unit` brings scores to powers of two.
  template <class Pair = Alone>
  STROBE_DEVICE void follow(float unit, const typename C::Scores& s, typename C::Outputs& o, Pair pair = {}) {
    float largest[C::kRowTiles][2];
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float m = fmaxf(s[r][0][2 * half], s[r][0][2 * half + 1]);
#pragma unroll
        for (int t = 1; t < C::kKeyTiles; ++t) m = fmaxf(m, fmaxf(s[r][t][2 * half], s[r][t][2 * half + 1]));
        largest[r][half] = largest_in_row(m);
      }
    }
    if constexpr (Pair::kPaired) {
      float theirs[C::kRowTiles][2];
      pair.swap_rows(largest, theirs);
#pragma unroll
      for (int n = 0; n < 2 * C::kRowTiles; ++n) {
        largest[n / 2][n % 2] = fmaxf(largest[n / 2][n % 2], theirs[n / 2][n % 2]);
      }
    }
    bool grown = false;
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float m = largest[r][half];
        // Subtracting from an origin of -inf would give NaN for a row that still sees nothing.
        grown |= m > origin[r][half] && !((m - origin[r][half]) * unit <= C::Element::kOriginSlack);
      }
    }
    if (__any_sync(~0u, grown)) move_origins(unit, largest, o);
  }

  /// Turns scores into weights exp2((s - origin) * unit) and adds them up, each thread its own columns.
  STROBE_DEVICE void weigh(float unit, typename C::Scores& s, float (&total)[C::kRowTiles][2]) const {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float from = origin[r][half] == minus_infinity() ? 0.0f : origin[r][half], shift = from * unit;
        total[r][half] = 0.0f;
#pragma unroll
        for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            // In float32 the largest weight is 1 to the bit, for an instruction more.
            constexpr bool kExact = C::Element::kOriginSlack == 0.0f;
            s[r][t][e] = ptx::ex2(kExact ? (s[r][t][e] - from) * unit : fmaf(s[r][t][e], unit, -shift));
            total[r][half] += s[r][t][e];
          }
        }
      }
    }
  }

  /// Whether some weights of the warp's rows may be too large for their type (or NaN).
  template <class Pair = Alone>
  STROBE_DEVICE bool overflows(const float (&total)[C::kRowTiles][2], Pair pair = {}) const {
    bool some = false;
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      some |= !(fmaxf(total[r][0], total[r][1]) < C::Element::kLargeWeights);
    }
    some = __any_sync(~0u, some);
    if constexpr (Pair::kPaired) return pair.either(some);
    return some;
  }

  STROBE_DEVICE void add(const float (&total)[C::kRowTiles][2]) {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      sum[r][0] += total[r][0];
      sum[r][1] += total[r][1];
    }
  }

 private:
  STROBE_DEVICE void move_origins(float unit, const float (&largest)[C::kRowTiles][2], typename C::Outputs& o) {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float next = fmaxf(origin[r][half], largest[r][half]);
        const float factor = next == minus_infinity() ? 1.0f : ptx::ex2((origin[r][half] - next) * unit);
        origin[r][half] = next;
        sum[r][half] *= factor;
#pragma unroll
        for (int t = 0; t < C::kValueTiles; ++t) {
          o[r][t][2 * half] *= factor;
          o[r][t][2 * half + 1] *= factor;
        }
      }
    }
  }
};

/// Clears the weights of dropped elements. `row` and `key` are those of s[0][0][0] in lane 0; key is a multiple of 8.
/// A counter of Philox covers four neighbouring keys, which two lanes hold for two rows: each draws for one row and
/// they exchange halves.
template <class C>
STROBE_DEVICE void drop(const AttentionParams& p, const Sequence& sequence, int head, int row, int key,
                        typename C::Scores& s) {
  const u64 stream = p.dropout_offset + u64(i64(sequence.batch) * p.query_heads + head);
  const int lane = lane_index();
  const bool odd = lane % 2 != 0;
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; ++t) {
      u32 words[4];
      const u32 quad = u32(key) / 4 + u32(2 * t + lane % 4 / 2);
      philox(u32(row + 16 * r + lane / 4 + (odd ? 8 : 0)), quad, stream, p.dropout_seed, words);
      // The even lane keeps words 0, 1 of the upper row and needs those of the lower one, the odd lane words 2, 3.
      const u32 theirs0 = __shfl_xor_sync(~0u, odd ? words[0] : words[2], 1);
      const u32 theirs1 = __shfl_xor_sync(~0u, odd ? words[1] : words[3], 1);
      const u32 upper0 = odd ? theirs0 : words[0], upper1 = odd ? theirs1 : words[1];
      const u32 lower0 = odd ? words[2] : theirs0, lower1 = odd ? words[3] : theirs1;
      if (upper0 < p.dropout_threshold) s[r][t][0] = 0.0f;
      if (upper1 < p.dropout_threshold) s[r][t][1] = 0.0f;
      if (lower0 < p.dropout_threshold) s[r][t][2] = 0.0f;
      if (lower1 < p.dropout_threshold) s[r][t][3] = 0.0f;
    }
  }
}

}  // namespace strobe::cuda::sm80
