// From S^T to P^T: what the first warp of a pair does between two products. Registers are laid out as mma leaves them,
// with keys as rows: s[r][t][e] is key 16 r + 8 (e / 2) + lane / 4 of the warp, query 8 t + 2 (lane % 4) + e % 2 of the
// tile.
#pragma once

#include "cuda/device/philox.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

/// What a warp knows of the tile that it visits.
struct Scene {
  const AttentionParams& p;
  const Sequence& sequence;
  const Sight& sight;
  int head;
  int first_row, first_key;  // of the tile, of the warp's keys
  bool hides;                // something of it
  int lane;
  float slope;  // ALiBi's

  /// Query of column 8 tile + 2 (lane % 4) + second, key of row 16 r + 8 half + lane / 4.
  STROBE_DEVICE int query(int tile, int second) const { return first_row + 8 * tile + 2 * (lane % 4) + second; }
  STROBE_DEVICE int key(int r, int half) const { return first_key + 16 * r + 8 * half + lane / 4; }
  STROBE_DEVICE int stored_key(int r, int half) const { return smaller(key(r, half), larger(sequence.keys - 1, 0)); }
};

/// What data show of elements s[r][t][e], for tiles t from `first_tile` on: bit 2 (t - first_tile) + e % 2 of word
/// 2 r + e / 2. A loop, as look_at_data is.
template <class C, int kTiles>
STROBE_DEVICE void look_at_columns(const Scene& scene, int first_tile, u32 (&shown)[2 * C::kRowTiles]) {
  const Sequence sequence = untraced(scene.sequence);
#pragma unroll
  for (u32& word : shown) word = 0;
#pragma unroll 1
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const ScoreRow row = score_row<C::kFeatures>(scene.p, sequence, scene.head, scene.query(first_tile + t, column));
#pragma unroll
      for (int n = 0; n < 2 * C::kRowTiles; ++n) {
        const bool shows = data_shows<C::kFeatures>(scene.p, sequence, row, scene.stored_key(n / 2, n % 2));
        shown[n] |= u32(shows) << (2 * t + column);
      }
    }
  }
}

/// Gives hidden elements of kTiles of the accumulators' tiles a value: -inf to scores, 0 to dP, which may be NaN.
template <class C, int kTiles>
STROBE_DEVICE void hide(const Scene& scene, int first_tile, float value, typename C::Scores& s) {
  u32 shown[2 * C::kRowTiles];
  if constexpr (C::kHidesByData) look_at_columns<C, kTiles>(scene, first_tile, shown);
#pragma unroll
  for (int n = 0; n < 2 * C::kRowTiles; ++n) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        bool shows = scene.sight.shows(scene.query(first_tile + t, column), scene.key(n / 2, n % 2));
        if constexpr (C::kHidesByData) shows &= (shown[n] >> (2 * t + column) & 1) != 0;
        if (!shows) s[n / 2][first_tile + t][n % 2 * 2 + column] = value;
      }
    }
  }
}

/// Softcap's derivative at the scores of a step.
template <class C>
using Slopes = float[C::kRowTiles][C::kStepTiles][4];

/// Where a warp's bias is: a tile in shared memory, rows of queries; of zeros, where `added` to the scores before.
struct WarpBias {
  u32 staged;
  bool added;
};

/// Brings all scores to powers of two and adds a bias that is not staged.
template <class C>
STROBE_DEVICE void add_scattered_bias(const Scene& scene, typename C::Scores& s) {
  const AttentionParams& p = scene.p;
  const Sequence sequence = untraced(scene.sequence);
  const float unit = p.scale * kLog2E;
  with_bias_elements(p.bias, [&](const auto& element) {
#pragma unroll
    for (int t = 0; t < C::kScoreTiles; ++t) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const ScoreRow row = score_row<C::kFeatures>(p, sequence, scene.head, scene.query(t, column));
#pragma unroll
        for (int n = 0; n < 2 * C::kRowTiles; ++n) {
          float& score = s[n / 2][t][n % 2 * 2 + column];
          const i64 place = scene.stored_key(n / 2, n % 2) * p.bias.column_stride;
          score = fmaf(score, unit, element(row.bias, place) * kLog2E);
        }
      }
    }
  });
}

/// Scores of a step after softcap, bias and ALiBi, as powers of two less the LSE, of which `shifts` are those of the
/// step's queries; hidden or not.
template <class C>
STROBE_DEVICE void edit_step(const Scene& scene, WarpBias bias, int k, const float2 (&shifts)[C::kStepTiles],
                             typename C::Scores& s, Slopes<C>& slopes) {
  constexpr int kRows = 2 * C::kRowTiles;  // of the accumulators that a thread holds of a query
  const AttentionParams& p = scene.p;
  const float unit = C::kFeatures == kBias && bias.added ? 1.0f : p.scale * kLog2E;
#pragma unroll
  for (int t = 0; t < C::kStepTiles; ++t) {
    const int tile = C::kStepTiles * k + t;
    u32 words[4];
    if constexpr (C::kStagesBias) {
      ptx::ldmatrix_x4_trans(bias.staged + C::BiasTile::offset(8 * tile + scene.lane % 8, scene.lane / 8), words);
    }
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const float shift = column == 0 ? shifts[t].x : shifts[t].y;
      const int i = scene.query(tile, column);
      const auto score = [&](int n) -> float& { return s[n / 2][tile][n % 2 * 2 + column]; };
      if constexpr (C::kFeatures == kSoftcap) {
        const Softcap softcap(p);
#pragma unroll
        for (int n = 0; n < kRows; ++n) {
          const float share = softcap.share(score(n)), steep = 4.0f * share;
          slopes[n / 2][t][n % 2 * 2 + column] = fmaf(-steep, share, steep);
          if constexpr (C::Element::kBytes == 4) {
            score(n) = fmaf(ExactSoftcap(p).capped(score(n)), kLog2E, -shift);
          } else {
            score(n) = fmaf(share, -2.0f * kLog2E * softcap.height, fmaf(softcap.height, kLog2E, -shift));
          }
        }
      } else if constexpr (C::kFeatures == kAlibi) {
        const float from = float(scene.query(0, 0) + scene.sequence.shift - scene.key(0, 0));
#pragma unroll
        for (int n = 0; n < kRows; ++n) {
          const float distance = fabsf(from + float(8 * tile + column - 8 * n));
          score(n) = fmaf(score(n), unit, fmaf(distance, -kLog2E * scene.slope, -shift));
        }
      } else if constexpr (C::kFeatures == kBias) {
#pragma unroll
        for (int n = 0; n < kRows; ++n) {
          float exponent = -shift;
          if constexpr (C::kStagesBias) {
            const float value = column == 0 ? C::Element::low(words[n]) : C::Element::high(words[n]);
            exponent = fmaf(value, kLog2E, exponent);
          }
          score(n) = fmaf(score(n), unit, exponent);
        }
      } else if constexpr (C::kFeatures == kAllFeatures) {
        const ScoreRow row = score_row<C::kFeatures>(p, scene.sequence, scene.head, i);
#pragma unroll
        for (int n = 0; n < kRows; ++n) {
          float capped = 0.0f;
          const float x = edited_score<typename C::Element, C::kFeatures>(p, row, scene.stored_key(n / 2, n % 2),
                                                                          scene.key(n / 2, n % 2), score(n), &capped);
          score(n) = fmaf(x, kLog2E, -shift);
          slopes[n / 2][t][n % 2 * 2 + column] = 1.0f - capped * capped;
        }
      } else {
#pragma unroll
        for (int n = 0; n < kRows; ++n) score(n) = fmaf(score(n), unit, -shift);
      }
    }
  }
}

/// Which of a thread's four elements of S^T[r][t] dropout drops, as bits e. `row` and `key` are those of lane 0. One
/// counter of Philox covers four neighbouring keys of a query, which lie in four lanes: each lane draws for one of the
/// four elements, and they exchange words.
STROBE_DEVICE u32 dropped(const AttentionParams& p, u64 stream, int lane, int query, int key) {
  const int mine = lane / 4 % 4;
  u32 words[4], drops = 0;
  const int i = query + 2 * (lane % 4) + mine % 2, j = key + lane / 16 * 4 + mine / 2 * 8;
  philox(u32(i), u32(j / 4), stream, p.dropout_seed, words);
#pragma unroll
  for (int turn = 0; turn < 4; ++turn) {
    const int other = mine ^ turn;
    const u32 given = other < 2 ? (other == 0 ? words[0] : words[1]) : (other == 2 ? words[2] : words[3]);
    const u32 draw = __shfl_xor_sync(~0u, given, 4 * turn);
    if (draw < p.dropout_threshold) drops |= 1u << other;
  }
  return drops;
}

/// The words of a left factor: which elements of the step's accumulators they hold (as left_factor of element.cuh), and
/// their signs, which are free in P, where none is negative.
template <class Element>
struct FactorWord {
  static constexpr int kElements = 4 / Element::kBytes;
  static constexpr u32 kLastSign = 0x80000000u, kSigns = kElements == 2 ? 0x80008000u : kLastSign;

  static STROBE_DEVICE constexpr int tile(int n) { return kElements == 2 ? n / 2 : 0; }
  /// Of the first element; the second, if there is one, follows.
  static STROBE_DEVICE constexpr int element(int n) { return kElements == 2 ? n % 2 * 2 : n % 2 * 2 + n / 2; }

  static STROBE_DEVICE u32 sign(int i) { return i + 1 == kElements ? kLastSign : 0x8000u; }
  /// All bits of the elements whose sign is set.
  static STROBE_DEVICE u32 spread(u32 signs) {
    return kElements == 2 ? (signs >> 15) * 0xffffu : signs != 0 ? ~0u : 0u;
  }
  static STROBE_DEVICE float value(u32 word, int i) {
    if constexpr (kElements == 2) {
      return i == 0 ? Element::low(word) : Element::high(word);
    } else {
      return __int_as_float(int(word));
    }
  }
  static STROBE_DEVICE u32 of(const float (&x)[kElements]) {
    if constexpr (kElements == 2) {
      return Element::pack(x[0], x[1]);
    } else {
      return u32(__float_as_int(x[0]));
    }
  }
};

/// From S^T of a warp and tile to P^T as a left factor, step by step; and P (1 - tanh^2) to memory for the other warp
/// of the pair, where a minus sign marks what dropout drops.
template <class C>
struct Weigher {
  const Scene& scene;
  u32 lse, exchange;
  WarpBias bias;
  float2 shifts[2][C::kStepTiles];  // LSE of this step and the next: loaded before this one's stores, which no load can
                                    // overtake

  STROBE_DEVICE void start(typename C::Scores& s) {
    if (!C::kEdits && scene.hides) hide<C, C::kScoreTiles>(scene, 0, minus_infinity(), s);
    if constexpr (C::kFeatures == kBias) {
      if (bias.added) add_scattered_bias<C>(scene, s);
    }
    load(0);
  }

  STROBE_DEVICE void load(int k) {
#pragma unroll
    for (int t = 0; t < C::kStepTiles; ++t) {
      shifts[k % 2][t] = ptx::ld_shared_f32x2(lse + (8 * (C::kStepTiles * k + t) + 2 * (scene.lane % 4)) * 4);
    }
  }

  STROBE_DEVICE void step(int k, typename C::Scores& s, u32 (&weights)[C::kRowTiles][4]) {
    using Word = FactorWord<typename C::Element>;
    Slopes<C> slopes;
    if (k + 1 < C::kSteps) load(k + 1);
    edit_step<C>(scene, bias, k, shifts[k % 2], s, slopes);
    if (C::kEdits && scene.hides) hide<C, C::kStepTiles>(scene, C::kStepTiles * k, minus_infinity(), s);
#pragma unroll
    for (int t = C::kStepTiles * k; t < C::kStepTiles * (k + 1); ++t) {
#pragma unroll
      for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[r][t][e] = ptx::ex2(s[r][t][e]);
      }
    }
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      u32 given[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        float x[Word::kElements];
#pragma unroll
        for (int i = 0; i < Word::kElements; ++i) x[i] = s[r][C::kStepTiles * k + Word::tile(n)][Word::element(n) + i];
        weights[r][n] = given[n] = Word::of(x);
        if constexpr (C::kSoftcaps) {
#pragma unroll
          for (int i = 0; i < Word::kElements; ++i) x[i] *= slopes[r][Word::tile(n)][Word::element(n) + i];
          given[n] = Word::of(x);
        }
      }
      if constexpr (C::kDrops) drop(k, r, given, weights[r]);
      ptx::st_shared_16(exchange + ((r * C::kSteps + k) * kWarpLanes + scene.lane) * 16,
                        make_uint4(given[0], given[1], given[2], given[3]));
    }
  }

 private:
  STROBE_DEVICE void drop(int k, int r, u32 (&given)[4], u32 (&weights)[4]) const {
    using Word = FactorWord<typename C::Element>;
    const AttentionParams& p = scene.p;
    const u64 stream = p.dropout_offset + u64(i64(scene.sequence.batch) * p.query_heads + scene.head);
    u32 drops[C::kStepTiles];
#pragma unroll
    for (int t = 0; t < C::kStepTiles; ++t) {
      drops[t] =
          dropped(p, stream, scene.lane, scene.first_row + 8 * (C::kStepTiles * k + t), scene.first_key + 16 * r);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      u32 signs = 0;
#pragma unroll
      for (int i = 0; i < Word::kElements; ++i) {
        if ((drops[Word::tile(n)] >> (Word::element(n) + i) & 1) != 0) signs |= Word::sign(i);
      }
      given[n] |= signs;
      weights[n] &= ~Word::spread(signs);
    }
  }
};

/// What dS^T of a step needs besides dP^T: P from the other warp, and delta. Loaded a step ahead, since no load can
/// overtake a store.
template <class C>
struct GradeStep {
  uint4 weights[C::kRowTiles];
  float2 delta[C::kStepTiles];

  STROBE_DEVICE void load(int lane, u32 delta_row, u32 exchange, int k) {
#pragma unroll
    for (int t = 0; t < C::kStepTiles; ++t) {
      delta[t] = ptx::ld_shared_f32x2(delta_row + (8 * (C::kStepTiles * k + t) + 2 * (lane % 4)) * 4);
    }
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      weights[r] = ptx::ld_shared_16(exchange + ((r * C::kSteps + k) * kWarpLanes + lane) * 16);
    }
  }
};

/// Stores 16 keys of dS^T, a left factor, to the tile of dS: keys from `key` on, queries of step k.
template <class C>
STROBE_DEVICE void store_grads(int lane, u32 grad_scores, int key, int k, const u32 (&grads)[4]) {
  if constexpr (C::Element::kBytes == 4) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int row = key + n % 2 * 8 + lane / 4, column = 2 * (lane % 4) + n / 2;
      ptx::st_shared_4(grad_scores + C::GradScoreTile::offset(row, 2 * k + column / 4) + column % 4 * 4, grads[n]);
    }
  } else if constexpr (C::kArchitecture >= 90) {
    ptx::stmatrix_x4(grad_scores + C::GradScoreTile::offset(key + lane % 16, 2 * k + lane / 16), grads);
  } else {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int row = key + n % 2 * 8 + lane / 4;
      ptx::st_shared_4(grad_scores + C::GradScoreTile::offset(row, 2 * k + n / 2) + lane % 4 * 4, grads[n]);
    }
  }
}

/// dS^T of step k as a left factor, from dP^T and what the other warp left, and to the tile of dS for dQ.
template <class C>
STROBE_DEVICE void grade(const AttentionParams& p, int lane, const GradeStep<C>& step, u32 grad_scores, int warp_key,
                         int k, const typename C::Scores& s, u32 (&grads)[C::kRowTiles][4]) {
  using Word = FactorWord<typename C::Element>;
#pragma unroll
  for (int r = 0; r < C::kRowTiles; ++r) {
    const u32 words[4] = {step.weights[r].x, step.weights[r].y, step.weights[r].z, step.weights[r].w};
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const u32 word = C::kDrops ? words[n] & ~Word::kSigns : words[n];
      float x[Word::kElements];
#pragma unroll
      for (int i = 0; i < Word::kElements; ++i) {
        const int t = Word::tile(n), e = Word::element(n) + i;
        float grad = s[r][C::kStepTiles * k + t][e];
        if constexpr (C::kDrops) grad = (words[n] & Word::sign(i)) != 0 ? 0.0f : grad * p.dropout_scale;
        x[i] = Word::value(word, i) * (grad - (e % 2 == 0 ? step.delta[t].x : step.delta[t].y));
      }
      grads[r][n] = Word::of(x);
    }
    store_grads<C>(lane, grad_scores, warp_key + 16 * r, k, grads[r]);
  }
}

}  // namespace strobe::cuda::sm80
