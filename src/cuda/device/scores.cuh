// What happens to scores between S = Q K^T and the softmax: scale, softcap, bias, ALiBi, and -inf for what is hidden
// (SPEC: "Scores"). One place for all kernels; registers are laid out as mma leaves them.
#pragma once

#include "cuda/device/visibility.cuh"

namespace strobe::cuda {

/// Features that change a score, features that hide keys by data, and those that make a kernel look at the scores of
/// every block for any of these reasons.
constexpr int kScoreFeatures = kSoftcap | kBias | kAlibi | kNegativeScale;
constexpr int kHidingFeatures = kDocuments | kMask | kBlockMask;
constexpr int kEditingFeatures = kScoreFeatures | kHidingFeatures;

/// softcap * tanh(score / softcap), as softcap * (1 - 2 share) where share = 1 / (e^(2 score / softcap) + 1): an
/// absolute error of a few float32 roundings of the softcap, exact limits. x is the product of query and key.
struct Softcap {
  static constexpr float kUnit = 0x1p-30f;  // shares as multiples of it: those that are less make no difference
  float factor, height;

  STROBE_DEVICE explicit Softcap(const AttentionParams& p)
      : factor(p.scale * ptx::rcp(p.softcap) * (2.0f * kLog2E)), height(p.softcap) {}

  /// Its derivative is 4 share (1 - share).
  STROBE_DEVICE float share(float x) const { return ptx::rcp(ptx::ex2(x * factor) + 1.0f); }
  STROBE_DEVICE float capped(float share) const { return fmaf(-2.0f * height, share, height); }

  STROBE_DEVICE float share_in_units(float x) const { return ptx::rcp(fmaf(ptx::ex2(x * factor), kUnit, kUnit)); }
  /// Those of four scores for one reciprocal, which is what kernels of 16-bit types wait for. Where one of the four is
  /// NaN the others become NaN.
  STROBE_DEVICE void shares_in_units(float (&x)[4]) const {
#pragma unroll
    for (float& a : x) a = ptx::fma_sat(ptx::ex2(a * factor), kUnit, kUnit);  // at most 1, so that no product overflows
    const float low = x[0] * x[1], high = x[2] * x[3], inverse = ptx::rcp(low * high);
    const float of_low = inverse * high, of_high = inverse * low, first = x[0], third = x[2];
    x[0] = of_low * x[1];
    x[1] = of_low * first;
    x[2] = of_high * x[3];
    x[3] = of_high * third;
  }
};

/// The same for float32, to about 2 ulp of itself: 1 - 2 share has lost what digits a small tanh has. tanh z is
/// (e^2z - 1) / (e^2z + 1), and with e^2z = 2^n (1 + r) the numerator 2^n r + (2^n - 1) keeps its digits. r is a
/// minimax polynomial on [-0.5, 0.5], the one of cpu/simd/math.hpp.
struct ExactSoftcap {
  float factor, height;

  STROBE_DEVICE explicit ExactSoftcap(const AttentionParams& p) : height(p.softcap) {
    float inverse = ptx::rcp(p.softcap);
    const float rest = fmaf(-p.softcap, inverse, 1.0f);
    if (is_finite(inverse)) inverse = fmaf(inverse, rest, inverse);  // a division would branch
    factor = p.scale * inverse * (2.0f * kLog2E);
  }

  STROBE_DEVICE float capped(float x) const {
    const float y = fminf(fmaxf(x * factor, -60.0f), 60.0f), whole = rintf(y), f = y - whole;
    float p = 1.540351248e-4f;
    p = fmaf(p, f, 1.339073654e-3f);
    p = fmaf(p, f, 9.618238013e-3f);
    p = fmaf(p, f, 5.550357656e-2f);
    p = fmaf(p, f, 2.402265044e-1f);
    const float r = fmaf(f, 6.931471972e-1f, f * f * p), power = __int_as_float((int(whole) + 127) << 23);
    const float numerator = fmaf(power, r, power - 1.0f);
    const float capped = height * numerator * ptx::rcp(numerator + 2.0f);
    return x == x ? capped : x;  // fmaxf has lost a NaN
  }
};

/// Whether scores of softcap alone are left as shares: in 16-bit types, for which that is precise enough.
template <class Element, int kFeatures>
constexpr bool kLeavesShares = (kFeatures == kSoftcap) && (Element::kBytes == 2);

/// Scores x after finish_scores are natural ones where features change them, else bare products; with kLeavesShares,
/// x is -share in units of Softcap. So x * unit is a score in powers of two, less the offset, which is in natural
/// units.
template <class Element, int kFeatures>
STROBE_DEVICE float score_unit(const AttentionParams& p) {
  if (kLeavesShares<Element, kFeatures>) return 2.0f * kLog2E * p.softcap * Softcap::kUnit;
  return (kFeatures & kScoreFeatures) != 0 ? kLog2E : p.scale * kLog2E;
}
template <class Element, int kFeatures>
STROBE_DEVICE float score_offset(const AttentionParams& p) {
  return kLeavesShares<Element, kFeatures> ? p.softcap : 0.0f;
}

/// Whether an option is given. A kernel compiled for it alone need not ask.
template <int kFeatures>
STROBE_DEVICE bool asked_for(bool given) {
  return kFeatures != kAllFeatures || given;
}

/// The documents of a sequence's queries, or of its keys.
struct Documents {
  const int* data;
  i64 stride;

  STROBE_DEVICE int operator()(int i) const { return data[i * stride]; }
};
STROBE_DEVICE Documents query_documents(const AttentionParams& p, const Sequence& s) {
  const VectorView& view = p.query_documents;
  const i64 first = p.packed_queries ? s.first_query * view.stride : s.batch * view.batch_stride;
  return {reinterpret_cast<const int*>(view.data) + first, view.stride};
}
STROBE_DEVICE Documents key_documents(const AttentionParams& p, const Sequence& s) {
  const VectorView& view = p.key_documents;
  const i64 first = p.packed_keys ? s.first_key * view.stride : s.batch * view.batch_stride;
  return {reinterpret_cast<const int*>(view.data) + first, view.stride};
}

/// One query row of one head: what it needs to edit its scores.
struct ScoreRow {
  int i;
  KeyRange visible;  // empty for rows past the sequence's last
  float position;    // p_i
  float slope;
  int document;
  const char *bias, *mask, *block_mask;
};

template <int kFeatures>
STROBE_DEVICE float alibi_slope(const AttentionParams& p, const Sequence& s, int head) {
  if ((kFeatures & kAlibi) == 0 || !asked_for<kFeatures>(p.alibi_slopes.data != nullptr)) return 0.0f;
  const float* const slopes = reinterpret_cast<const float*>(p.alibi_slopes.data);
  return slopes[s.batch * p.alibi_slopes.batch_stride + head * p.alibi_slopes.stride];
}

template <int kFeatures>
STROBE_DEVICE ScoreRow score_row(const AttentionParams& p, const Sequence& s, int head, int i, float slope) {
  ScoreRow row{};
  row.i = i;
  row.slope = slope;
  row.visible = i < s.queries ? visible_keys(p, s, i) : KeyRange{0, 0};
  if constexpr ((kFeatures & kAlibi) != 0) {
    row.position = float(i + s.shift);
  }
  const int stored = smaller(i, larger(s.queries - 1, 0));  // rows that are not there read some other row's facts
  const auto row_of = [&](const ScoresView& view, int row_index) {
    return s.batch * view.batch_stride + head * view.head_stride + row_index * view.row_stride;
  };
  if constexpr ((kFeatures & kBias) != 0) {
    if (p.bias.data) row.bias = p.bias.data + row_of(p.bias, stored) * size_of(p.bias.type);
  }
  if constexpr ((kFeatures & kMask) != 0) {
    if (p.mask.data) row.mask = p.mask.data + row_of(p.mask, stored);
  }
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (p.block_mask.data) row.block_mask = p.block_mask.data + row_of(p.block_mask, stored / p.block_rows);
  }
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (asked_for<kFeatures>(p.query_documents.data != nullptr)) row.document = query_documents(p, s)(stored);
  }
  return row;
}

template <int kFeatures>
STROBE_DEVICE ScoreRow score_row(const AttentionParams& p, const Sequence& s, int head, int i) {
  return score_row<kFeatures>(p, s, head, i, alibi_slope<kFeatures>(p, s, head));
}

/// Whether data (documents, mask, block mask) leave key j visible to the row. j must be a key in use.
template <int kFeatures>
STROBE_DEVICE bool data_shows(const AttentionParams& p, const Sequence& s, const ScoreRow& row, int j) {
  bool shows = true;
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (asked_for<kFeatures>(p.query_documents.data != nullptr)) shows &= key_documents(p, s)(j) == row.document;
  }
  if constexpr ((kFeatures & kMask) != 0) {
    if (asked_for<kFeatures>(row.mask != nullptr)) shows &= row.mask[j * p.mask.column_stride] != 0;
  }
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (asked_for<kFeatures>(row.block_mask != nullptr)) {
      shows &= row.block_mask[j / p.block_columns * p.block_mask.column_stride] != 0;
    }
  }
  return shows;
}

/// The score of key j after scale, softcap, bias and ALiBi. `x` is the product of query and key; `stored` is j, or a
/// key whose bias may be read where j is none. `capped` receives the softcap's tanh.
template <class Element, int kFeatures>
STROBE_DEVICE float edited_score(const AttentionParams& p, const ScoreRow& row, int stored, int j, float x,
                                 float* capped) {
  if ((kFeatures & kSoftcap) != 0 && asked_for<kFeatures>(p.softcap > 0.0f)) {
    const Softcap softcap(p);
    const float share = softcap.share(x);
    *capped = 1.0f - 2.0f * share;
    x = Element::kBytes == 4 ? ExactSoftcap(p).capped(x) : softcap.capped(share);
  } else {
    x *= p.scale;
  }
  if constexpr ((kFeatures & kBias) != 0) {
    if (row.bias) x += load_float(row.bias, p.bias.type, stored * p.bias.column_stride);
  }
  if constexpr ((kFeatures & kAlibi) != 0) x -= row.slope * fabsf(row.position - float(j));
  return x;
}

/// Calls visit(t, e, j) for every score s[t][e] of a thread's accumulators of 16 rows and 8 keys each, whose first key
/// is `first_key`; j is the score's key.
template <int kKeyTiles, class Visit>
STROBE_DEVICE void for_each_score(int first_key, const Visit& visit) {
  const int first = first_key + 2 * (lane_index() % 4);
#pragma unroll
  for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) visit(t, e, first + 8 * t + e % 2);
  }
}

/// Calls visit with a function that gives element `place` of a row of the bias, one for each width of the elements.
template <class Visit>
STROBE_DEVICE void with_bias_elements(const ScoresView& bias, const Visit& visit) {
  if (bias.type == Element::kFloat32) {
    visit([](const char* row, i64 place) { return reinterpret_cast<const float*>(row)[place]; });
  } else {
    const bool half = bias.type == Element::kFloat16;
    visit([half](const char* row, i64 place) {
      const u16 bits = reinterpret_cast<const u16*>(row)[place];
      return half ? ptx::cvt_f32_f16(bits) : bfloat16_value(bits);
    });
  }
}

/// Adds the bias to scores times `scale`. Keys past the last one in use read that one's.
template <int kKeyTiles>
STROBE_DEVICE void add_bias(const AttentionParams& p, const Sequence& s, const ScoreRow (&rows)[2], int first_key,
                            float scale, float (&scores)[kKeyTiles][4]) {
  const int last = larger(s.keys - 1, 0);
  const int first = ptx::untraced(first_key);  // nothing that follows from it is kept for the next rows
  with_bias_elements(p.bias, [&](const auto& element) {
    for_each_score<kKeyTiles>(first, [&](int t, int e, int j) {
      const i64 place = smaller(j, last) * p.bias.column_stride;
      scores[t][e] = fmaf(scores[t][e], scale, element(rows[e / 2].bias, place));
    });
  });
}

/// The same from shared memory: a tile of a 16-bit type, whose rows are the accumulators' 16.
template <class BiasTile, int kKeyTiles>
STROBE_DEVICE void add_staged_bias(u32 tile, float scale, float (&scores)[kKeyTiles][4]) {
  const LaneChunks<BiasTile> chunks(tile, lane_index() % 16, lane_index() / 16);
#pragma unroll
  for (int t = 0; t < kKeyTiles; t += 2) {
    u32 words[4];
    ptx::ldmatrix_x4(chunks.at(0, t), words);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      float(&pair)[4] = scores[t + n / 2];
      const int e = n % 2 * 2;
      pair[e] = fmaf(pair[e], scale, BiasTile::Element::low(words[n]));
      pair[e + 1] = fmaf(pair[e + 1], scale, BiasTile::Element::high(words[n]));
    }
  }
}

/// Scale, softcap, bias and ALiBi, hidden or not. `whole`: all rows see all keys. `Element` says how precise it must
/// be.
template <class Element, int kFeatures, int kKeyTiles>
STROBE_DEVICE void edit_scores(const AttentionParams& p, const Sequence& s, const ScoreRow (&rows)[2], int first_key,
                               bool whole, float (&scores)[kKeyTiles][4]) {
  float scale = p.scale;  // by which scores are still to be multiplied
  if ((kFeatures & kSoftcap) != 0 && asked_for<kFeatures>(p.softcap > 0.0f)) {
    const Softcap softcap(p);
    scale = 1.0f;
    if (kLeavesShares<Element, kFeatures> && whole) {
#pragma unroll
      for (int t = 0; t < kKeyTiles; t += 2) {
#pragma unroll
        for (int e = 0; e < 4; e += 2) {  // four of one row
          float four[4] = {scores[t][e], scores[t][e + 1], scores[t + 1][e], scores[t + 1][e + 1]};
          softcap.shares_in_units(four);
#pragma unroll
          for (int n = 0; n < 4; ++n) scores[t + n / 2][e + n % 2] = -four[n];
        }
      }
    } else if (Element::kBytes == 4) {
      const ExactSoftcap exact(p);
      for_each_score<kKeyTiles>(first_key, [&](int t, int e, int) { scores[t][e] = exact.capped(scores[t][e]); });
    } else {
      for_each_score<kKeyTiles>(first_key, [&](int t, int e, int) {
        float& x = scores[t][e];
        x = kFeatures == kSoftcap ? -softcap.share_in_units(x) : softcap.capped(softcap.share(x));
      });
    }
    if constexpr (kFeatures == kSoftcap) return;
  }
  if ((kFeatures & kBias) != 0 && asked_for<kFeatures>(p.bias.data != nullptr)) {
    add_bias<kKeyTiles>(p, s, rows, first_key, scale, scores);
    scale = 1.0f;
    if constexpr (kFeatures == kBias) return;
  }
  if ((kFeatures & kAlibi) != 0 && asked_for<kFeatures>(p.alibi_slopes.data != nullptr)) {
    const float first = float(first_key + 2 * (lane_index() % 4));
    const float from[2] = {rows[0].position - first, rows[1].position - first};
    for_each_score<kKeyTiles>(first_key, [&](int t, int e, int) {
      const float distance = fabsf(from[e / 2] - float(8 * t + e % 2));
      scores[t][e] = fmaf(scores[t][e], scale, -rows[e / 2].slope * distance);
    });
  } else {
    for_each_score<kKeyTiles>(first_key, [&](int t, int e, int) { scores[t][e] *= scale; });
  }
}

/// What data show of the scores s[t][e] of two rows, as bits 2 t + e % 2 of word e / 2.
struct ShownBits {
  u32 words[2];
};
template <int kFeatures, int kKeyTiles>
STROBE_DEVICE ShownBits look_at_data(const AttentionParams& p, const Sequence& s, const ScoreRow (&rows)[2],
                                     int first_key) {
  const int first = first_key + 2 * (lane_index() % 4), last = larger(s.keys - 1, 0);
  ShownBits shown{{0, 0}};
#pragma unroll 1
  for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const int j = smaller(first + 8 * t + column, last);  // keys that are not there read the last one's facts
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        shown.words[half] |= u32(data_shows<kFeatures>(p, s, rows[half], j)) << (2 * t + column);
      }
    }
  }
  return shown;
}
/// The same of queries `row` and row + 8 of a head, out of line: it seldom runs, and inlined it cost the loop around it
/// so many registers that documents were 23% slower where they hid nothing.
template <int kFeatures, int kKeyTiles>
__device__ __noinline__ ShownBits look_at_rows(const AttentionParams& p, int batch, int head, int row, int first_key) {
  const Sequence s = sequence_of(p, batch);
  const ScoreRow rows[2] = {score_row<kFeatures>(p, s, head, row), score_row<kFeatures>(p, s, head, row + 8)};
  return look_at_data<kFeatures, kKeyTiles>(p, s, rows, first_key);
}

/// -inf to what data hide.
template <int kKeyTiles>
STROBE_DEVICE void hide_by_data(const ShownBits& shown, float (&scores)[kKeyTiles][4]) {
#pragma unroll
  for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if ((shown.words[e / 2] >> (2 * t + e % 2) & 1) == 0) scores[t][e] = minus_infinity();
    }
  }
}

/// -inf to what position hides.
template <int kKeyTiles>
STROBE_DEVICE void hide_by_position(int prefix, const ScoreRow (&rows)[2], int first_key,
                                    float (&scores)[kKeyTiles][4]) {
  for_each_score<kKeyTiles>(first_key, [&](int t, int e, int j) {
    if (!sees(rows[e / 2].visible, prefix, j)) scores[t][e] = minus_infinity();
  });
}

/// Finishes the scores of 8 * kKeyTiles keys from `first_key` on for the two rows that a thread holds of m16n8
/// accumulators: s[t][e] is row rows[e / 2], key first_key + 8 t + 2 (lane % 4) + e % 2. Afterwards they are in the
/// units of score_unit; hidden keys are -inf. `whole`: there are none.
template <class Element, int kFeatures, int kKeyTiles>
STROBE_DEVICE void finish_scores(const AttentionParams& p, const Sequence& s, int prefix, const ScoreRow (&rows)[2],
                                 int first_key, bool whole, float (&scores)[kKeyTiles][4]) {
  if constexpr ((kFeatures & kScoreFeatures) != 0) {
    edit_scores<Element, kFeatures, kKeyTiles>(p, s, rows, first_key, whole, scores);
  }
  if (whole) return;
  hide_by_position<kKeyTiles>(prefix, rows, first_key, scores);
  if constexpr ((kFeatures & kHidingFeatures) != 0) {
    hide_by_data<kKeyTiles>(look_at_data<kFeatures, kKeyTiles>(p, s, rows, first_key), scores);
  }
}

}  // namespace strobe::cuda
