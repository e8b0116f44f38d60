// What a 32-bit word of a product's factors is: one float32, or a pair of bf16 values where the unit has the dot
// product. The products of the prefill and the backward kernel are templates over this and nothing else.
#pragma once

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

struct FloatOperand {
  using Word = float;
  using Vector = Floats;
  static constexpr int kPerWord = 1;
  static constexpr int kPieces = 1;        // words that stand for one, as their sum
  static constexpr bool kInTiles = false;  // whether products run on tile registers
  static constexpr bool kExact = true;     // whether weights keep more digits than bf16 has
  static constexpr bool kScaled = true;    // whether queries are multiplied by the scale before products
  static STROBE_INLINE Vector load(const Word* from) { return hold(STROBE_ISA::load(from)); }
  static STROBE_INLINE Vector broadcast(Word x) { return STROBE_ISA::broadcast(x); }
  static STROBE_INLINE Floats multiply_add(Floats sum, Vector a, Vector b) { return fma(a, b, sum); }
};

#if STROBE_ISA_ID >= 3
struct PairOperand {
  using Word = std::uint32_t;
  using Vector = Pairs;
  static constexpr int kPerWord = 2;
  static constexpr int kPieces = 1;
  static constexpr bool kInTiles = STROBE_ISA_ID == 4;
  static constexpr bool kExact = false;
  static constexpr bool kScaled = false;
  static STROBE_INLINE Vector load(const Word* from) { return load_pairs(from); }
  static STROBE_INLINE Vector broadcast(Word x) { return broadcast_pair(x); }
  static STROBE_INLINE Floats multiply_add(Floats sum, Vector a, Vector b) { return dot(sum, a, b); }
};
#endif

#if STROBE_ISA_ID == 4
/// float32 (three pieces) or float16 (two) as sums of bf16 values, the largest first: a piece has 8 bits of the 24
/// or 11. A product is the sum of the products of pieces, as far as they can matter (simd/amx.hpp). Scaled, a float16
/// query would need a third piece.
template <int kParts>
struct SplitOperand : PairOperand {
  static constexpr int kPieces = kParts;
  static constexpr bool kExact = true;
  static constexpr bool kScaled = kParts == 3;
};
#endif

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
