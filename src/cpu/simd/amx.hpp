// What units with AMX have beside the verbs of AVX-512: eight tile registers of 16 rows of 64 bytes, the product of
// bf16 pairs, and an exponential for weights that become bf16. A verb on tile registers is one instruction, as text:
// the compilers' own functions differ in what they promise about memory. A tile register's number is a constant.
#pragma once

#include <immintrin.h>

namespace strobe::cpu::STROBE_ISA {
namespace {

/// 2^x for weights that are rounded to bf16 next: within 3e-6 of itself, 0 below -126 and for -inf; NaN stays NaN. The
/// fraction x - floor(x) is one instruction and the power takes x as it is; subnormal results, of which microcode would
/// make 65 ns a vector (Granite Rapids), are masked. A minimax polynomial of degree 4 on [0, 1), with 1 at zero (fitted
/// by least squares with moving weights).
STROBE_INLINE Floats exp2_coarse(Floats x) {
  const Floats f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Floats p = broadcast(1.342668553e-2f);
  p = fma(p, f, broadcast(5.224247138e-2f));
  p = fma(p, f, broadcast(2.412802068e-1f));
  p = fma(p, f, broadcast(6.930448445e-1f));
  p = fma(p, f, broadcast(1.0f));
  const Mask normal = _mm512_cmp_ps_mask(x, broadcast(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, p, x);
}

/// x cut off to the 8 digits of bf16, and pairs of so much of two vectors' elements, lane by lane.
STROBE_INLINE Floats cut(Floats x) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(std::int32_t(0xffff0000u))));
}
STROBE_INLINE Pairs pair_cut(Floats low, Floats high) {
  constexpr int kSelect = 0xea;  // (high & upper) | low, of high, upper and low
  return _mm512_ternarylogic_epi32(_mm512_castps_si512(high), _mm512_set1_epi32(std::int32_t(0xffff0000u)),
                                   _mm512_srli_epi32(_mm512_castps_si512(low), 16), kSelect);
}

/// Pairs of two vectors' elements, lane by lane, as sums of kPieces pairs of bf16 values, the largest first; exact with
/// three. Weights only: cut off, not rounded, so values must not be infinite.
template <int kPieces>
STROBE_INLINE void cut_pairs(Floats low, Floats high, Pairs (&pieces)[kPieces]) {
  for (int piece = 0; piece < kPieces; ++piece) {
    pieces[piece] = pair_cut(low, high);
    if (piece + 1 == kPieces) break;
    low = sub(low, cut(low));
    high = sub(high, cut(high));
  }
}

/// What x is to be rounded to bf16 from: rounding must not make an infinity of a finite number.
STROBE_INLINE Floats roundable(Floats x) {
  const Floats most = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f7f0000));
  const Mask infinite = equal(abs(x), broadcast(__builtin_huge_valf()));
  return select(infinite, x, max(sub(zero(), most), min(most, x)));  // NaN comes through
}
/// x without what it was rounded to; infinities have no rest.
STROBE_INLINE Floats rest(Floats x, __m512i rounded) {
  const Mask infinite = equal(abs(x), broadcast(__builtin_huge_valf()));
  return select(infinite, zero(), sub(x, _mm512_castsi512_ps(rounded)));
}
/// Whether all elements of two vectors can be rounded as they are, and have a rest: almost always.
STROBE_INLINE bool are_roundable(Floats low, Floats high) {
  const Floats most = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f7f0000));
  return !any(_mm512_cmp_ps_mask(max(abs(low), abs(high)), most, _CMP_GT_OQ));
}
/// The elements of even and those of odd index of pairs, the first and the last half of a row, as floats.
STROBE_INLINE __m512i even_of(Pairs x) { return _mm512_slli_epi32(x, 16); }
STROBE_INLINE __m512i odd_of(Pairs x) { return _mm512_and_si512(x, _mm512_set1_epi32(std::int32_t(0xffff0000u))); }
STROBE_INLINE __m512i first_of(Pairs x) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)), 16);
}
STROBE_INLINE __m512i last_of(Pairs x) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)), 16);
}

/// Pairs of two vectors' elements, lane by lane, as sums of kPieces pairs of bf16 values, the largest first. Three make
/// float32 exactly, two float16.
template <int kPieces>
STROBE_INLINE void split_pairs(Floats low, Floats high, Pairs (&pieces)[kPieces]) {
  if (are_roundable(low, high)) {
    for (int piece = 0; piece < kPieces; ++piece) {
      pieces[piece] = pack_pairs(low, high);
      low = sub(low, _mm512_castsi512_ps(even_of(pieces[piece])));
      high = sub(high, _mm512_castsi512_ps(odd_of(pieces[piece])));
    }
    return;
  }
  for (int piece = 0; piece < kPieces; ++piece) {
    pieces[piece] = pack_pairs(roundable(low), roundable(high));
    low = rest(low, even_of(pieces[piece]));
    high = rest(high, odd_of(pieces[piece]));
  }
}
/// The same of 32 elements in their order, as pairs of neighbours.
template <int kPieces>
STROBE_INLINE void split_row(Floats first, Floats last, Pairs (&pieces)[kPieces]) {
  if (are_roundable(first, last)) {
    for (int piece = 0; piece < kPieces; ++piece) {
      pieces[piece] = round_both(first, last);
      first = sub(first, _mm512_castsi512_ps(first_of(pieces[piece])));
      last = sub(last, _mm512_castsi512_ps(last_of(pieces[piece])));
    }
    return;
  }
  for (int piece = 0; piece < kPieces; ++piece) {
    pieces[piece] = round_both(roundable(first), roundable(last));
    first = rest(first, first_of(pieces[piece]));
    last = rest(last, last_of(pieces[piece]));
  }
}

constexpr int kTileEdge = 16;  // rows of a tile register, and 32-bit words of a row

/// The operand of LDTILECFG: palette 1, the one there is.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, first_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// From here on, until release_tiles(), this thread may use tile registers; all have their full size.
STROBE_INLINE void configure_tiles() {
  const TileShapes shapes;
  asm volatile("ldtilecfg %0" : : "m"(shapes));
}
/// Released registers cost nothing when the system switches threads.
STROBE_INLINE void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
STROBE_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
/// Rows lie `stride` words apart.
template <int kTile>
STROBE_INLINE void load_tile(const void* from, std::ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(4 * stride), "i"(kTile) : "memory");
}
template <int kTile>
STROBE_INLINE void store_tile(void* to, std::ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(4 * stride), "i"(kTile) : "memory");
}
/// sum += a * b: sum is [16][16] in float32, a [16][16 pairs], b [16 pairs][16]; subnormal bf16 values count as zero.
template <int kSum, int kA, int kB>
STROBE_INLINE void multiply_add_tile() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

/// A factor of a product as tiles: the rows of one lie `stride` words apart, the next one along the sum `step` words
/// on, and its neighbour across the sum `next` words on.
struct TileFactor {
  const std::uint32_t* at;
  std::ptrdiff_t stride, step, next;
};

/// Tile registers of a product: sums 0 to 3, by rows, then two of each factor.
constexpr int kLeftTile = 4, kRightTile = 6;

/// Up to 2 x 2 tiles of sums, which stay in their registers from begin to end.
template <int kRows, int kColumns>
struct TileProduct {
  static STROBE_INLINE void clear() {
    clear_tile<0>();
    if constexpr (kColumns > 1) clear_tile<1>();
    if constexpr (kRows > 1) clear_tile<2>();
    if constexpr (kRows > 1 && kColumns > 1) clear_tile<3>();
  }
  static STROBE_INLINE void load(const float* from, std::ptrdiff_t stride) {
    load_tile<0>(from, stride);
    if constexpr (kColumns > 1) load_tile<1>(from + kTileEdge, stride);
    if constexpr (kRows > 1) load_tile<2>(from + kTileEdge * stride, stride);
    if constexpr (kRows > 1 && kColumns > 1) load_tile<3>(from + kTileEdge * stride + kTileEdge, stride);
  }
  static STROBE_INLINE void store(float* to, std::ptrdiff_t stride) {
    store_tile<0>(to, stride);
    if constexpr (kColumns > 1) store_tile<1>(to + kTileEdge, stride);
    if constexpr (kRows > 1) store_tile<2>(to + kTileEdge * stride, stride);
    if constexpr (kRows > 1 && kColumns > 1) store_tile<3>(to + kTileEdge * stride + kTileEdge, stride);
  }
  /// Adds the product of the factors' n-th tiles along the sum.
  static STROBE_INLINE void add(const TileFactor& left, const TileFactor& right, int n) {
    const std::uint32_t *const a = left.at + n * left.step, *const b = right.at + n * right.step;
    load_tile<kRightTile>(b, right.stride);
    load_tile<kLeftTile>(a, left.stride);
    multiply_add_tile<0, kLeftTile, kRightTile>();
    if constexpr (kColumns > 1) {
      load_tile<kRightTile + 1>(b + right.next, right.stride);
      multiply_add_tile<1, kLeftTile, kRightTile + 1>();
    }
    if constexpr (kRows > 1) {
      load_tile<kLeftTile + 1>(a + left.next, left.stride);
      multiply_add_tile<2, kLeftTile + 1, kRightTile>();
    }
    if constexpr (kRows > 1 && kColumns > 1) multiply_add_tile<3, kLeftTile + 1, kRightTile + 1>();
  }

  /// The same for tiles [first, last) of factors whose values are sums of kPieces pieces, `left_piece` and
  /// `right_piece` words apart: of pieces i and j the products with i + j < kPieces, or all four of two pieces, which
  /// are exact. What is left out is 2^-24 of the product with three pieces, 2^-17 with two. From one product to the
  /// next only one factor changes, whose tiles are loaded as soon as they are used up.
  template <int kPieces, bool kAll = false>
  static STROBE_INLINE void add_split(const TileFactor& left, std::ptrdiff_t left_piece, const TileFactor& right,
                                      std::ptrdiff_t right_piece, int first, int last) {
    static_assert(kPieces == 2 || (kPieces == 3 && !kAll));
    const auto left_at = [&](int n, int piece) { return left.at + n * left.step + piece * left_piece; };
    const auto right_at = [&](int n, int piece) { return right.at + n * right.step + piece * right_piece; };
    const auto load_first = [&](int n) {
      load_left<0>(left_at(n, kPieces - 1), left);
      load_right<0>(right_at(n, 0), right);
      load_left<1>(left_at(n, kPieces - 1), left);
      load_right<1>(right_at(n, 0), right);
    };
    load_first(first);
    for (int n = first; n < last; ++n) {
      if constexpr (kPieces == 3) {
        multiply_for_left(left_at(n, 1), left);
        multiply_for_right(right_at(n, 1), right);
        multiply_for_left(left_at(n, 0), left);
        multiply_for_right(right_at(n, 2), right);
        multiply_for_right(right_at(n, 0), right);
      } else if constexpr (kAll) {
        multiply_for_right(right_at(n, 1), right);
        multiply_for_left(left_at(n, 0), left);
        multiply_for_right(right_at(n, 0), right);
      } else {
        multiply_for_left(left_at(n, 0), left);
        multiply_for_right(right_at(n, 1), right);
      }
      multiply<0, 0>();
      multiply<0, 1>();
      multiply<1, 0>();
      multiply<1, 1>();
      if (n + 1 < last) load_first(n + 1);
    }
  }

 private:
  template <int kRow>
  static STROBE_INLINE void load_left(const std::uint32_t* from, const TileFactor& left) {
    if constexpr (kRow < kRows) load_tile<kLeftTile + kRow>(from + kRow * left.next, left.stride);
  }
  template <int kColumn>
  static STROBE_INLINE void load_right(const std::uint32_t* from, const TileFactor& right) {
    if constexpr (kColumn < kColumns) load_tile<kRightTile + kColumn>(from + kColumn * right.next, right.stride);
  }
  template <int kRow, int kColumn>
  static STROBE_INLINE void multiply() {
    if constexpr (kRow < kRows && kColumn < kColumns) {
      multiply_add_tile<2 * kRow + kColumn, kLeftTile + kRow, kRightTile + kColumn>();
    }
  }
  /// Multiplies what is loaded, and loads the next product's left or right tiles.
  static STROBE_INLINE void multiply_for_left(const std::uint32_t* next, const TileFactor& left) {
    multiply<0, 0>();
    multiply<0, 1>();
    load_left<0>(next, left);
    multiply<1, 0>();
    multiply<1, 1>();
    load_left<1>(next, left);
  }
  static STROBE_INLINE void multiply_for_right(const std::uint32_t* next, const TileFactor& right) {
    multiply<0, 0>();
    multiply<1, 0>();
    load_right<0>(next, right);
    multiply<0, 1>();
    multiply<1, 1>();
    load_right<1>(next, right);
  }
};

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
