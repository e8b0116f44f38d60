// The two register tiles of decode, over rows of keys and values given by address: scores of R query rows against a few
// keys, and R output rows plus weighted values. Lanes are head dimensions. A format says how stored elements multiply.
#pragma once

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kKeys = 64;                              // keys of a block: a bit each in a mask of 64
constexpr int kAccumulators = kLanes == 16 ? 16 : 8;   // vectors that a tile of outputs keeps in registers
constexpr int kMaxTileRows = kLanes < 8 ? kLanes : 8;  // query rows that a tile can hold

/// Keys and values of any type become floats in registers.
template <typename T>
struct FloatFormat {
  using Query = float;   // of staged queries
  using Weight = float;  // of probabilities
  using Vector = Floats;
  using Value = Floats;
  static constexpr int kDims = kLanes;                       // dims of one step
  static constexpr int kQueryStep = kLanes;                  // and elements of a staged query
  static constexpr int kStepBytes = kDims * int(sizeof(T));  // of a stored row
  static constexpr int kVectors = 1;                         // float vectors that a step's dims fill
  static constexpr int kKeysPerTurn = 1;                     // keys that one multiplication covers
  static constexpr int dim_of(int place) { return place; }   // of a step's outputs

  STROBE_INLINE static Vector load_query(const Query* row, int step) { return load(row + step * kDims); }
  STROBE_INLINE static Vector load_key(const char* row, int step) {
    return load(reinterpret_cast<const T*>(row) + step * kDims);
  }
  STROBE_INLINE static void load_values(const char* const* rows, int step, Value* v) { v[0] = load_key(rows[0], step); }
  STROBE_INLINE static Value load_weight(const Weight* p, int key) { return broadcast(p[key]); }
  STROBE_INLINE static Floats multiply_add(Vector a, Vector b, Floats c) { return fma(a, b, c); }
};

/// bf16 as floats: a step's dims come as the even ones, then the odd ones.
struct SplitFormat {
  using Query = float;
  using Weight = float;
  struct Vector {
    Floats even, odd;
  };
  using Value = Floats;
  static constexpr int kDims = 2 * kLanes;
  static constexpr int kQueryStep = kDims;
  static constexpr int kStepBytes = 2 * kDims;
  static constexpr int kVectors = 2;
  static constexpr int kKeysPerTurn = 1;
  static constexpr int dim_of(int place) { return place % kLanes * 2 + place / kLanes; }

  STROBE_INLINE static Vector load_query(const Query* row, int step) {
    return {load(row + step * kDims), load(row + step * kDims + kLanes)};
  }
  STROBE_INLINE static Vector load_key(const char* row, int step) {
    Vector key;
    load_bfloat16_split(reinterpret_cast<const std::uint16_t*>(row) + step * kDims, key.even, key.odd);
    return key;
  }
  STROBE_INLINE static void load_values(const char* const* rows, int step, Value* v) {
    const Vector value = load_key(rows[0], step);
    v[0] = value.even;
    v[1] = value.odd;
  }
  STROBE_INLINE static Value load_weight(const Weight* p, int key) { return broadcast(p[key]); }
  STROBE_INLINE static Floats multiply_add(Vector a, Vector b, Floats c) {
    return fma(a.odd, b.odd, fma(a.even, b.even, c));
  }
  STROBE_INLINE static Floats multiply_add(Value a, Value b, Floats c) { return fma(a, b, c); }
};

#if STROBE_ISA_ID == 3
/// bf16 throughout: keys multiply pairs of dims, values pairs of keys, and a step's outputs come as the first and the
/// last four of every eight dims.
struct DotFormat {
  using Query = std::uint32_t;   // a pair of dims
  using Weight = std::uint32_t;  // a pair of keys
  using Vector = Pairs;
  using Value = Pairs;
  static constexpr int kDims = 2 * kLanes;
  static constexpr int kQueryStep = kLanes;
  static constexpr int kStepBytes = 2 * kDims;
  static constexpr int kVectors = 2;
  static constexpr int kKeysPerTurn = 2;
  static constexpr int dim_of(int place) { return place % kLanes / 4 * 8 + place / kLanes * 4 + place % 4; }

  STROBE_INLINE static Vector load_query(const Query* row, int step) { return load_pairs(row + step * kLanes); }
  STROBE_INLINE static Vector load_key(const char* row, int step) {
    return load_pairs(reinterpret_cast<const std::uint32_t*>(row) + step * kLanes);
  }
  STROBE_INLINE static void load_values(const char* const* rows, int step, Value* v) {
    interleave(load_key(rows[0], step), load_key(rows[1], step), v[0], v[1]);
  }
  STROBE_INLINE static Value load_weight(const Weight* p, int key) { return broadcast_pair(p[key / 2]); }
  STROBE_INLINE static Floats multiply_add(Vector a, Vector b, Floats c) { return dot(c, a, b); }
};
#endif

/// Rows that a tile asks for while it multiplies others, one for one and line by line: `bytes` of each.
struct Ahead {
  const char* const* rows;
  int bytes;

  template <typename Format>
  STROBE_INLINE void ask(int row, int step) const {
    const int at = step * Format::kStepBytes;
    if (at % 64 == 0 && at < bytes) __builtin_prefetch(rows[row] + at, 0, 2);
  }
};

/// S = Q K^T for R query rows and kLanes / R keys: s[r * kKeys + n].
template <typename Format, int R>
STROBE_INLINE void score_tile(const typename Format::Query* q, int q_stride, int steps, const char* const* keys,
                              float* s, const Ahead& ahead) {
  constexpr int N = kLanes / R;
  Floats sum[kLanes];
  for (int a = 0; a < kLanes; ++a) sum[a] = zero();
  for (int step = 0; step < steps; ++step) {
    for (int n = 0; n < N; ++n) ahead.ask<Format>(n, step);
    typename Format::Vector k[N];
    for (int n = 0; n < N; ++n) k[n] = Format::load_key(keys[n], step);
    for (int r = 0; r < R; ++r) {
      const auto row = Format::load_query(q + r * q_stride, step);
      for (int n = 0; n < N; ++n) sum[r * N + n] = Format::multiply_add(row, k[n], sum[r * N + n]);
    }
  }
  alignas(64) float lanes[kLanes];
  store(lanes, sums(sum));
  for (int r = 0; r < R; ++r) __builtin_memcpy(s + r * kKeys, lanes + r * N, sizeof(float) * N);
}

/// O += P V for R rows, S steps of dims from `step` on and keys [first, last). Rows of `o` are o_stride apart, rows of
/// `p` cover kKeys keys.
template <typename Format, int R, int S>
STROBE_INLINE void output_tile(const typename Format::Weight* p, const char* const* values, int first, int last,
                               int step, float* o, int o_stride, const Ahead& ahead) {
  constexpr int V = S * Format::kVectors;
  constexpr int kWeights = kKeys / Format::kKeysPerTurn;
  Floats sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = load(o + r * o_stride + step * Format::kDims + v * kLanes);
  }
  for (int n = first; n < last; n += Format::kKeysPerTurn) {
    typename Format::Value value[V];
    for (int s = 0; s < S; ++s) {
      for (int key = 0; key < Format::kKeysPerTurn; ++key) ahead.ask<Format>(n + key, step + s);
      Format::load_values(values + n, step + s, value + s * Format::kVectors);
    }
    for (int r = 0; r < R; ++r) {
      const auto weight = Format::load_weight(p + r * kWeights, n);
      for (int v = 0; v < V; ++v) sum[r][v] = Format::multiply_add(weight, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) store(o + r * o_stride + step * Format::kDims + v * kLanes, sum[r][v]);
  }
}

/// output_tile over all steps from `step` to `steps`, in tiles of at most S steps.
template <typename Format, int R, int S>
STROBE_INLINE void output_tiles(const typename Format::Weight* p, const char* const* values, int first, int last,
                                int step, int steps, float* o, int o_stride, const Ahead& ahead) {
  for (; step + S <= steps; step += S) {
    output_tile<Format, R, S>(p, values, first, last, step, o, o_stride, ahead);
  }
  if constexpr (S > 1) {
    output_tiles<Format, R, S / 2>(p, values, first, last, step, steps, o, o_stride, ahead);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
