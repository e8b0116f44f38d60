// The online softmax of a warp's 16 rows (FlashAttention-2, arXiv 2307.08691, algorithm 1). The origin of the
// exponentials follows the maximum only when that has grown by more than kOriginSlack in powers of two, and the outputs
// are rescaled apart from it, later: when the product that is being added to them has ended. Where all rows have an
// origin, weights may be taken against it without looking for the maximum at all, as long as they stay in the range of
// their type: a look at their sums tells.
#pragma once

#include "cuda/device/lanes.cuh"
#include "cuda/sm90/forward/config.cuh"

namespace strobe::cuda::sm90 {

/// State of a thread's two rows.
template <class C>
struct Softmax {
  float origin[2] = {minus_infinity(), minus_infinity()};  // in the scores' units; -inf while a row has seen nothing
  float sum[2] = {0.0f, 0.0f};                             // of this thread's columns
  float factor[2];                                         // what outputs are to be multiplied by, where origins moved

  /// The rows' largest scores. Floats that are not negative are in the order of their bits, and of integers the device
  /// compares three at a time, which pays up to d64; where all scores of some row are negative, as seldom happens
  /// unless they are edited, floats are compared.
  static STROBE_DEVICE void find_largest(const typename C::Scores& s, float (&largest)[2]) {
    if constexpr (C::kDim <= 64 && !C::kEdits) {
      int bits[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        bits[half] = __float_as_int(s[0][2 * half]);
#pragma unroll
        for (int n = 1; n < 2 * C::kKeyTiles; ++n) {
          bits[half] = larger(bits[half], __float_as_int(s[n / 2][2 * half + n % 2]));
        }
        bits[half] = larger(bits[half], __shfl_xor_sync(~0u, bits[half], 1));
        bits[half] = larger(bits[half], __shfl_xor_sync(~0u, bits[half], 2));
        largest[half] = __int_as_float(bits[half]);
      }
      if (!__any_sync(~0u, (bits[0] | bits[1]) < 0)) [[likely]]
        return;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float m = fmaxf(s[0][2 * half], s[0][2 * half + 1]);
#pragma unroll
      for (int t = 1; t < C::kKeyTiles; ++t) m = fmaxf(m, fmaxf(s[t][2 * half], s[t][2 * half + 1]));
      largest[half] = largest_in_row(m);
    }
  }

  /// The first block's maxima become the origins.
  STROBE_DEVICE void begin(const typename C::Scores& s) {
    find_largest(s, origin);
    sum[0] = sum[1] = 0.0f;
  }

  /// Lets the origins follow the scores' maxima. Returns whether any row's origin of the warp moved.
  STROBE_DEVICE bool follow(float unit, const typename C::Scores& s) {
    float largest[2];
    find_largest(s, largest);
    bool grown = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float m = largest[half];
      // Subtracting from an origin of -inf would give NaN for a row that still sees nothing.
      grown |= m > origin[half] && !((m - origin[half]) * unit <= C::Element::kOriginSlack);
    }
    if (!__any_sync(~0u, grown)) return false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float next = fmaxf(origin[half], largest[half]);
      factor[half] = next == minus_infinity() ? 1.0f : ptx::ex2((origin[half] - next) * unit);
      origin[half] = next;
      sum[half] *= factor[half];
    }
    return true;
  }

  /// Whether every row of the warp has an origin.
  STROBE_DEVICE bool settled() const {
    return __all_sync(~0u, origin[0] != minus_infinity() && origin[1] != minus_infinity());
  }

  /// Turns scores into weights exp2((s - origin) * unit), and gives their sums, each thread those of its own columns.
  STROBE_DEVICE void weigh(float unit, typename C::Scores& s, float (&total)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float shift = origin[half] == minus_infinity() ? 0.0f : origin[half] * unit;
      total[half] = 0.0f;
#pragma unroll
      for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[t][e] = ptx::ex2(fmaf(s[t][e], unit, -shift));
          total[half] += s[t][e];
        }
      }
    }
  }

  /// The same of scores that are in powers of two and have lost their origins already.
  static STROBE_DEVICE void weigh_shifted(typename C::Scores& s, float (&total)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] = 0.0f;
#pragma unroll
      for (int t = 0; t < C::kKeyTiles; ++t) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[t][e] = ptx::ex2(s[t][e]);
          total[half] += s[t][e];
        }
      }
    }
  }
  /// Takes origins from scores in powers of two.
  STROBE_DEVICE void shift(typename C::Scores& s) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float shift = origin[half] == minus_infinity() ? 0.0f : origin[half];
#pragma unroll
      for (int t = 0; t < C::kKeyTiles; ++t) {
        s[t][2 * half] -= shift;
        s[t][2 * half + 1] -= shift;
      }
    }
  }

  /// Whether some weights of the warp may be too large for their type (or NaN).
  static STROBE_DEVICE bool overflows(const float (&total)[2]) { return exceeds(C::Element::kLargeWeights, total); }
  /// The same with a limit of the caller's.
  static STROBE_DEVICE bool exceeds(float most, const float (&total)[2]) {
    return __any_sync(~0u, !(fmaxf(total[0], total[1]) < most));
  }

  STROBE_DEVICE void add(const float (&total)[2]) {
    sum[0] += total[0];
    sum[1] += total[1];
  }

  STROBE_DEVICE void rescale(typename C::Outputs& o) const {
#pragma unroll
    for (int n = 0; n < C::kValueTiles; ++n) {
      float(&sums)[4] = o[n / 8][n % 8];
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[e] *= factor[e / 2];
    }
  }
};

}  // namespace strobe::cuda::sm90
