// What options make of products: scores in powers of two, less the origins of their rows. (SPEC: "Scores".) A warp's
// accumulators are edited at once, so what all of its rows have in common decides which way is taken.
//
// Where rows have origins and see all keys of a block, scores become weights at once (weigh_quickly): exponentials
// issue once in eight clocks, and what is between them costs nothing.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

/// A warp's place among scores, as one thread has it: rows `row` and row + 8, keys from `key` on.
struct EditPlace {
  int row, key;
  int warp_row, first_key;  // of the warp and of the block
};

/// The bias of a block in shared memory (bias.cuh) as a lane finds it: its address of one of the first two tiles of
/// eight keys.
template <class C, bool = C::kStagesBias>
struct BlockBias {};
template <class C>
struct BlockBias<C, true> {
  u32 first;

  STROBE_DEVICE static BlockBias at(u32 stage, bool one_row) {
    const int row = one_row ? 0 : warp_index() % 4 * 16 + lane_index() % 16;
    return {stage + row * kPanelRowBytes + ((lane_index() / 16 ^ row) & 7) * kChunkBytes};
  }
  /// Pairs of neighbouring keys of the thread's two rows, in tile t and in the next one, for an even t.
  STROBE_DEVICE void load(int t, u32 (&pairs)[4]) const {
    ptx::ldmatrix_x4((first ^ t % 8 * kChunkBytes) + t / 8 * kWarpgroupRows * kPanelRowBytes, pairs);
  }
};

/// One option's scores with few instructions: operator()(x, t, e) is the score of product s[t][e] less its row's shift.
/// Not all products and places allow it.
template <class C, int kFeature>
struct QuickEdit;

template <class C>
struct QuickEdit<C, kNegativeScale> {
  float unit, shift[2];

  STROBE_DEVICE float operator()(float x, int, int e) const { return fmaf(x, unit, -shift[e / 2]); }
};

/// softcap * tanh(x * scale / softcap) as a polynomial in x^2, times x. A reciprocal and one more exponential each
/// would occupy the unit for them for longer than the products take. With five terms it errs by 7e-6 of the score where
/// no product is larger than softcap / scale, with three by 2e-5 up to half of that.
template <int kTerms>
struct QuickCap {
  const float (&terms)[kTerms];
  float shift[2];

  STROBE_DEVICE float operator()(float x, int, int e) const {
    const float square = x * x;
    float factor = terms[kTerms - 1];
#pragma unroll
    for (int term = kTerms - 2; term >= 0; --term) factor = fmaf(factor, square, terms[term]);
    return fmaf(x, factor, -shift[e / 2]);
  }
};

/// x * scale - slope |p_i - j| on one side of the diagonal, where the distance is linear in the key.
template <class C>
struct QuickEdit<C, kAlibi> {
  float unit, step, start[2];

  STROBE_DEVICE float operator()(float x, int t, int e) const {
    return fmaf(x, unit, fmaf(step, float(8 * t + e % 2), start[e / 2]));
  }
};

/// Calls use(x, score, half) for all products x, of the thread's row `half`, where score is x * scale + bias, of an
/// Element of 16 bits, less its row's shift.
template <class C, class Element, class Use>
STROBE_DEVICE void add_bias_of(const BlockBias<C>& bias, float unit, const float (&shift)[2], typename C::Scores& s,
                               const Use& use) {
#pragma unroll
  for (int t = 0; t < C::kKeyTiles; t += 2) {
    u32 pairs[4];
    bias.load(t, pairs);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int half = n % 4 / 2;
      const u32 pair = pairs[n / 4 * 2 + half];
      const float value = n % 2 == 0 ? Element::low(pair) : Element::high(pair);
      float& x = s[t + n / 4][n % 4];
      use(x, fmaf(x, unit, fmaf(value, kLog2E, -shift[half])), half);
    }
  }
}
template <class C, class Use>
STROBE_DEVICE void add_bias(const AttentionParams& p, const BlockBias<C>& bias, const float (&shift)[2],
                            typename C::Scores& s, const Use& use) {
  const float unit = p.scale * kLog2E;
  if (p.bias.type == Element::kFloat16) {
    add_bias_of<C, Float16>(bias, unit, shift, s, use);
  } else {
    add_bias_of<C, BFloat16>(bias, unit, shift, s, use);
  }
}

template <class C, class Edit>
STROBE_DEVICE void apply(const Edit& edit, typename C::Scores& s) {
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) s[n / 4][n % 4] = edit(s[n / 4][n % 4], n / 4, n % 4);
}
/// The same, and scores to weights with their sums.
template <class C, class Edit>
STROBE_DEVICE void weigh(const Edit& edit, typename C::Scores& s, float (&total)[2]) {
  total[0] = total[1] = 0.0f;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
    float& x = s[n / 4][n % 4];
    x = ptx::ex2(edit(x, n / 4, n % 4));
    total[n % 4 / 2] += x;
  }
}

/// Whether all keys of a block are at or before the positions of all rows of the warp; at or behind them.
template <class C>
STROBE_DEVICE bool is_before(const Sequence& s, const EditPlace& place) {
  return place.first_key + C::kKeyBlock - 1 <= place.warp_row + s.shift;
}
STROBE_DEVICE bool is_behind(const Sequence& s, const EditPlace& place) {
  return place.first_key >= place.warp_row + 15 + s.shift;
}

template <class C>
STROBE_DEVICE QuickEdit<C, kAlibi> one_sided(const AttentionParams& p, const Task<C>& task, const EditPlace& place,
                                             bool before, const float (&shift)[2]) {
  const float step = before ? task.slope : -task.slope;
  const int from = place.row + task.s.shift - place.key;
  return {p.scale * kLog2E, step, {fmaf(-step, float(from), -shift[0]), fmaf(-step, float(from + 8), -shift[1])}};
}

/// Whether scores of a block that all rows see may become weights at once, once rows have origins. Where they grow from
/// block to block, because keys come nearer, they would soon be too large.
template <class C>
STROBE_DEVICE bool is_quick(const ForwardParams& f, const Task<C>& task, const EditPlace& place) {
  if constexpr (C::kFeatures == kAlibi) {
    const bool slow_growth = task.slope * C::kKeyBlock <= C::kQuickGrowth;
    return is_before<C>(task.s, place) || (is_behind(task.s, place) && slow_growth);
  } else if constexpr (C::kFeatures == kBias) {
    return f.bias_rows > 0;
  }
  return C::kFeatures != kAllForwardFeatures;
}
/// How large sums of such weights may be.
template <class C>
STROBE_DEVICE constexpr float most_weights() {
  return C::kFeatures == kSoftcap ? kSoftcapWeights : C::Element::kLargeWeights;
}

/// Whether capped scores of the warp's rows may become weights at once. The polynomial grows without bounds where it is
/// no softcap any more, so weights of such scores are either too large or lost in the sum, if origins are neither very
/// high nor very low.
template <int kTerms>
STROBE_DEVICE bool caps_quickly(const SoftcapPolynomial<kTerms>& cap, const float (&origin)[2]) {
  return __all_sync(~0u, fminf(origin[0], origin[1]) >= cap.lowest && fmaxf(origin[0], origin[1]) <= cap.highest);
}

/// Scores to weights against the rows' origins. Sums of weights tell whether that was right.
template <class C>
STROBE_DEVICE void weigh_quickly(const ForwardParams& f, const Task<C>& task, const EditPlace& place,
                                 const float (&origin)[2], const BlockBias<C>& bias, typename C::Scores& s,
                                 float (&total)[2]) {
  const AttentionParams& p = f.attention;
  const float unit = p.scale * kLog2E;
  if constexpr (C::kFeatures == kSoftcap) {
    if (caps_quickly(f.softcap_in_few, origin)) {
      weigh<C>(QuickCap<kFewSoftcapTerms>{f.softcap_in_few.terms, {origin[0], origin[1]}}, s, total);
    } else {
      weigh<C>(QuickCap<kSoftcapTerms>{f.softcap.terms, {origin[0], origin[1]}}, s, total);
    }
  } else if constexpr (C::kFeatures == kAlibi) {
    weigh<C>(one_sided<C>(p, task, place, is_before<C>(task.s, place), origin), s, total);
  } else if constexpr (C::kFeatures == kBias) {
    total[0] = total[1] = 0.0f;
    add_bias<C>(p, bias, origin, s, [&](float& x, float score, int half) {
      x = ptx::ex2(score);
      total[half] += x;
    });
  } else if constexpr (C::kFeatures == kNegativeScale) {
    weigh<C>(QuickEdit<C, kNegativeScale>{unit, {origin[0], origin[1]}}, s, total);
  }
}

template <class C>
STROBE_DEVICE void cap_scores(const ForwardParams& f, typename C::Scores& s) {
  float largest = 0.0f;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) largest = fmaxf(largest, fabsf(s[n / 4][n % 4]));
  if (__all_sync(~0u, largest <= f.softcap_limit)) {
    apply<C>(QuickCap<kSoftcapTerms>{f.softcap.terms, {0.0f, 0.0f}}, s);
  } else {
    const Softcap softcap(f.attention);
    const float height = softcap.height * kLog2E;
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
      float& x = s[n / 4][n % 4];
      x = fmaf(-2.0f * height, softcap.share(x), height);
    }
  }
}

template <class C>
STROBE_DEVICE void add_distances(const AttentionParams& p, const Task<C>& task, const EditPlace& place,
                                 typename C::Scores& scores) {
  const int from = place.row + task.s.shift - place.key;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) {
    float& x = scores[n / 4][n % 4];
    const float distance = fabsf(float(from + 8 * (n % 4 / 2)) - float(n / 4 * 8 + n % 2));
    x = fmaf(x, p.scale * kLog2E, -task.slope * distance);
  }
}

template <class C>
STROBE_DEVICE void edit_with_bias(const ForwardParams& f, const Task<C>& task, const EditPlace& place,
                                  const BlockBias<C>& bias, typename C::Scores& s) {
  const AttentionParams& p = f.attention;
  if (f.bias_rows > 0) {
    add_bias<C>(p, bias, {0.0f, 0.0f}, s, [](float& x, float score, int) { x = score; });
    return;
  }
  const ScoreRow rows[2] = {score_row<kBias>(p, task.s, task.head, place.row),
                            score_row<kBias>(p, task.s, task.head, place.row + 8)};
  add_bias<C::kKeyTiles>(p, task.s, rows, place.first_key, p.scale, s);
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) s[n / 4][n % 4] *= kLog2E;
}

/// Any products to scores in powers of two.
template <class C>
STROBE_DEVICE void edit_scores(const ForwardParams& f, const Task<C>& task, const EditPlace& place,
                               const BlockBias<C>& bias, typename C::Scores& s) {
  const AttentionParams& p = f.attention;
  if constexpr (C::kFeatures == kSoftcap) {
    cap_scores<C>(f, s);
  } else if constexpr (C::kFeatures == kAlibi) {
    add_distances<C>(p, task, place, s);
  } else if constexpr (C::kFeatures == kBias) {
    edit_with_bias<C>(f, task, place, bias, s);
  } else if constexpr (C::kFeatures == kAllForwardFeatures) {
    const ScoreRow rows[2] = {score_row<kAllFeatures>(p, task.s, task.head, place.row),
                              score_row<kAllFeatures>(p, task.s, task.head, place.row + 8)};
    edit_scores<typename C::Element, kAllFeatures, C::kKeyTiles>(p, task.s, rows, place.first_key, false, s);
#pragma unroll
    for (int n = 0; n < 4 * C::kKeyTiles; ++n) s[n / 4][n % 4] *= kLog2E;
  } else {
    static_assert(C::kFeatures == kNegativeScale);
    apply<C>(QuickEdit<C, kNegativeScale>{p.scale * kLog2E, {0.0f, 0.0f}}, s);
  }
}

}  // namespace strobe::cuda::sm90
