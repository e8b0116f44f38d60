// What options make of a warpgroup's products S^T: weights P^T against LSE (SPEC: "Scores", "Gradients"), and what dS^T
// is made of where that is something else. Exponents are powers of two.
#pragma once

#include "cuda/sm80/backward/weights.cuh"
#include "cuda/sm90/backward/config.cuh"

namespace strobe::cuda::sm90 {

/// A thread's place among a tile's scores: element s[t][e] is of query 8 t + e % 2 and key 8 (e / 2) from here on.
struct ScorePlace {
  int query, key;
  int warp_query, warp_key;  // of lane 0
};

/// A score's weight for dV, and its weight for dS with a minus sign where dropout drops it, as one word.
template <class Element>
struct SplitWeight {
  static constexpr u32 kDropped = 0x80000000u;

  static STROBE_DEVICE float of(float weight, float slope, bool dropped) {
    const u32 word = Element::pack(dropped ? 0.0f : weight, weight * slope);
    return __int_as_float(int(dropped ? word | kDropped : word));
  }
  static STROBE_DEVICE u32 word(float x) { return u32(__float_as_int(x)); }
  /// The words of two scores: their weights for dV, and those for dS, as a left factor has them.
  static STROBE_DEVICE u32 given(float x, float y) { return (word(x) & 0xffffu) | word(y) << 16; }
  static STROBE_DEVICE u32 graded(float x, float y) { return word(x) >> 16 | (word(y) & 0xffff0000u); }
};

/// What a warp brings to shared memory of the bias or the boolean mask, a tile ahead: rows of its 16 keys, one for each
/// query. Rows of 32 bytes have their halves exchanged in every other four, so that ldmatrix meets no bank twice.
template <class C>
struct StagedRows {
  static constexpr int kRowBytes = C::kStagedRowBytes, kChunks = kRowBytes / kChunkBytes;
  u32 rows;  // in shared memory

  STROBE_DEVICE static const ScoresView& view(const AttentionParams& p) {
    return C::kFeatures == kBias ? p.bias : p.mask;
  }
  /// Whether they come this way.
  STROBE_DEVICE static bool given(const AttentionParams& p) {
    if constexpr (kRowBytes == 0) return false;
    return view(p).in_chunks && (C::kFeatures == kMask || view(p).type == p.query.type);
  }
  STROBE_DEVICE u32 chunk(int row, int n) const {
    const int place = kChunks == 2 ? n ^ (row >> 2 & 1) : n;
    return rows + row * kRowBytes + place * kChunkBytes;
  }

  /// Asks for those of a tile. The warp has left the tile before.
  STROBE_DEVICE void ask(const AttentionParams& p, const Sequence& s, int head, const ScorePlace& place) const {
    if constexpr (kRowBytes == 0) return;
    if (!given(p)) return;
    constexpr int kElementBytes = kRowBytes / 16;
    const i64 first = s.batch * view(p).batch_stride + head * view(p).head_stride + place.warp_key;
    const char* const data = view(p).data + first * kElementBytes;
    __syncwarp();
#pragma unroll
    for (int n = lane_index(); n < C::kScoreQueries * kChunks; n += kWarpLanes) {
      const int row = n / kChunks, half = n % kChunks, key = place.warp_key + half * (16 / kChunks);
      const i64 at = smaller(place.warp_query + row, s.queries - 1) * view(p).row_stride + half * (16 / kChunks);
      ptx::cp_async_16(chunk(row, half), data + at * kElementBytes, key < p.key_length);
    }
    ptx::cp_async_commit();
  }
  STROBE_DEVICE void wait() const {
    ptx::cp_async_wait<0>();
    __syncwarp();
  }

  /// Adds the bias, in powers of two, to products times the scale.
  STROBE_DEVICE void add_to(const AttentionParams& p, typename C::Scores& scores) const {
    const float unit = p.scale * kLog2E;
    const int lane = lane_index();
    wait();
#pragma unroll
    for (int t = 0; t < C::kScoreTiles; t += 2) {
      u32 words[4];
      ptx::ldmatrix_x4_trans(chunk(8 * t + lane / 16 * 8 + lane % 8, lane / 8 % 2), words);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        float(&pair)[4] = scores[t + n / 2];
        const int e = n % 2 * 2;
        pair[e] = fmaf(pair[e], unit, C::Element::low(words[n]) * kLog2E);
        pair[e + 1] = fmaf(pair[e + 1], unit, C::Element::high(words[n]) * kLog2E);
      }
    }
  }
};

/// Adds the bias, in powers of two, to products times the scale. Queries and keys that are not there read others'.
template <class C>
STROBE_DEVICE void add_bias(const AttentionParams& p, const Sequence& s, int head, const ScorePlace& place,
                            typename C::Scores& scores) {
  const float unit = p.scale * kLog2E;
  const char* const data =
      p.bias.data + (s.batch * p.bias.batch_stride + head * p.bias.head_stride) * size_of(p.bias.type);
  const i64 row_bytes = p.bias.row_stride * size_of(p.bias.type);
  const i64 columns[2] = {smaller(place.key, s.keys - 1) * p.bias.column_stride,
                          smaller(place.key + 8, s.keys - 1) * p.bias.column_stride};
  with_bias_elements(p.bias, [&](const auto& element) {
#pragma unroll
    for (int n = 0; n < 2 * C::kScoreTiles; ++n) {
      const char* const row = data + smaller(place.query + n / 2 * 8 + n % 2, s.queries - 1) * row_bytes;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& score = scores[n / 2][2 * half + n % 2];
        score = fmaf(score, unit, element(row, columns[half]) * kLog2E);
      }
    }
  });
}

/// Products to weights; where C::kSplitsWeights, to SplitWeights. `lse` is that of the thread's first query, in shared
/// memory. Nothing is hidden yet.
template <class C>
STROBE_DEVICE void weigh_edited(const AttentionParams& p, const Sequence& s, int head, float slope,
                                const ScorePlace& place, const StagedRows<C>& staged, u32 lse,
                                typename C::Scores& scores) {
  using Element = typename C::Element;
  constexpr int kFeatures = C::kCommonFeatures;
  constexpr bool kAll = kFeatures == kAllFeatures;
  const bool caps = C::kSoftcaps && asked_for<kFeatures>(p.softcap > 0.0f);
  const bool has_bias = kAll && p.bias.data != nullptr;
  const bool drops = C::kDrops && asked_for<kFeatures>(p.dropout_threshold != 0);
  if constexpr (C::kFeatures == kBias) {
    if (StagedRows<C>::given(p)) {
      if constexpr (C::kStagedRowBytes > 0) staged.add_to(p, scores);
    } else {
      add_bias<C>(p, s, head, place, scores);
    }
  }
  const float unit = C::kFeatures == kBias ? 1.0f : p.scale * kLog2E;
  const Softcap softcap(p);
  const float from = float(place.query + s.shift - place.key), steep = -kLog2E * slope;
  const u64 stream = p.dropout_offset + u64(i64(s.batch) * p.query_heads + head);
  const char* const bias_rows =
      p.bias.data + (s.batch * p.bias.batch_stride + head * p.bias.head_stride) * size_of(p.bias.type);
#pragma unroll
  for (int t = 0; t < C::kScoreTiles; ++t) {
    const float2 shift = ptx::ld_shared_f32x2(lse + t * 32);
    u32 dropped = 0;
    if constexpr (C::kDrops) {
      if (drops) dropped = sm80::dropped(p, stream, lane_index(), place.warp_query + 8 * t, place.warp_key);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float& x = scores[t][e];
      float rest = e % 2 == 0 ? -shift.x : -shift.y, derivative = 1.0f;
      if constexpr ((kFeatures & kAlibi) != 0) {
        rest = fmaf(fabsf(from + float(8 * t + e % 2 - e / 2 * 8)), steep, rest);
      }
      if constexpr (kAll) {
        if (has_bias) {
          const int i = smaller(place.query + 8 * t + e % 2, s.queries - 1);
          const int j = smaller(place.key + e / 2 * 8, s.keys - 1);
          const i64 at = i * p.bias.row_stride + j * p.bias.column_stride;
          rest = fmaf(load_float(bias_rows, p.bias.type, at), kLog2E, rest);
        }
      }
      if (caps) {
        const float share = softcap.share(x), four = 4.0f * share;
        derivative = fmaf(-four, share, four);
        x = fmaf(share, -2.0f * kLog2E * softcap.height, fmaf(softcap.height, kLog2E, rest));
      } else {
        x = fmaf(x, unit, rest);
      }
      x = ptx::ex2(x);
      if constexpr (C::kSplitsWeights) x = SplitWeight<Element>::of(x, derivative, (dropped >> e & 1) != 0);
    }
  }
}

}  // namespace strobe::cuda::sm90
