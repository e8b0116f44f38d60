// What options make of products: scores in powers of two, less the origins of their rows. (SPEC: "Scores".) A warp's
// accumulators are edited at once, so what all of its rows have in common decides which way is taken.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

/// A warp's place among scores, as one thread has it: rows `row` and row + 8, keys from `key` on.
struct EditPlace {
  int row, key;
  int warp_row, first_key;  // of the warp and of the block
};

/// x becomes softcap * tanh(x * scale / softcap). A reciprocal and one more exponential each would occupy the unit for
/// them for longer than the products take; where no product is larger than softcap / scale, as nearly always, a
/// polynomial of degree four in x^2 does, which errs by 7e-6 of the score.
template <class C>
STROBE_DEVICE void cap_scores(const ForwardParams& f, const float (&shift)[2], typename C::Scores& s) {
  float largest = 0.0f;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) largest = fmaxf(largest, fabsf(s[n / 4][n % 4]));
  if (__all_sync(~0u, largest <= f.softcap_limit)) [[likely]] {
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
      float& x = s[n / 4][n % 4];
      const float square = x * x;
      float factor = f.softcap_terms[kSoftcapTerms - 1];
#pragma unroll
      for (int term = kSoftcapTerms - 2; term >= 0; --term) factor = fmaf(factor, square, f.softcap_terms[term]);
      x = fmaf(x, factor, -shift[n % 4 / 2]);
    }
    return;
  }
  const Softcap softcap(f.attention);
  const float height = softcap.height * kLog2E;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
    float& x = s[n / 4][n % 4];
    x = fmaf(-2.0f * height, softcap.share(x), height - shift[n % 4 / 2]);
  }
}

/// Whether all keys of a block are at or before the positions of all rows of the warp.
template <class C>
STROBE_DEVICE bool is_behind(const Sequence& s, const EditPlace& place) {
  return place.first_key + C::kKeyBlock - 1 <= place.warp_row + s.shift;
}

/// x becomes x * scale - slope |p_i - j|. On one side of the diagonal the distance is linear in the key. `slope` is in
/// powers of two.
template <class C>
STROBE_DEVICE void add_distances(const AttentionParams& p, const Sequence& s, float slope, const EditPlace& place,
                                 const float (&shift)[2], typename C::Scores& scores) {
  const float unit = p.scale * kLog2E;
  const int position = place.row + s.shift;
  const float from[2] = {float(position - place.key), float(position + 8 - place.key)};
  const bool behind = is_behind<C>(s, place), ahead = place.first_key >= place.warp_row + 15 + s.shift;
  if (behind || ahead) {
    const float step = behind ? slope : -slope;
    const float start[2] = {fmaf(-step, from[0], -shift[0]), fmaf(-step, from[1], -shift[1])};
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
      float& x = scores[n / 4][n % 4];
      x = fmaf(x, unit, fmaf(step, float(n / 4 * 8 + n % 2), start[n % 4 / 2]));
    }
  } else {
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
      float& x = scores[n / 4][n % 4];
      const float distance = fabsf(from[n % 4 / 2] - float(n / 4 * 8 + n % 2));
      x = fmaf(x, unit, -slope * distance) - shift[n % 4 / 2];
    }
  }
}

/// Products to scores in powers of two, less `shift` of their rows.
template <class C>
STROBE_DEVICE void edit_scores(const ForwardParams& f, const Task<C>& task, const EditPlace& place,
                               const float (&shift)[2], typename C::Scores& s) {
  if constexpr (C::kFeatures == kSoftcap) {
    cap_scores<C>(f, shift, s);
  } else if constexpr (C::kFeatures == kAlibi) {
    add_distances<C>(f.attention, task.s, task.slope, place, shift, s);
  } else {
    static_assert(C::kFeatures == kNegativeScale);
    const float unit = f.attention.scale * kLog2E;
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) s[n / 4][n % 4] = fmaf(s[n / 4][n % 4], unit, -shift[n % 4 / 2]);
  }
}

}  // namespace strobe::cuda::sm90
