// Elements as memory holds them, several at a time, and their values as floats: for kernels that stream through
// tensors.
#pragma once

#include "cuda/device/element.cuh"

namespace strobe::cuda {

/// The word that an element of a STROBE_TYPE option is stored in. float8 is only moved, never read.
template <int kElement>
struct StorageOf {
  using Word = u8;
};
template <>
struct StorageOf<int(Element::kFloat32)> {
  using Word = u32;
  static STROBE_DEVICE float value(u32 word) { return __int_as_float(int(word)); }
  static STROBE_DEVICE u32 word(float x) { return u32(__float_as_int(x)); }
};
template <>
struct StorageOf<int(Element::kFloat16)> {
  using Word = u16;
  using Pair = Float16;
  static STROBE_DEVICE float value(u16 word) { return ptx::cvt_f32_f16(word); }
  static STROBE_DEVICE u16 word(float x) { return u16(Float16::pack(x, 0.0f)); }
};
template <>
struct StorageOf<int(Element::kBFloat16)> {
  using Word = u16;
  using Pair = BFloat16;
  static STROBE_DEVICE float value(u16 word) { return bfloat16_value(word); }
  static STROBE_DEVICE u16 word(float x) { return u16(BFloat16::pack(x, 0.0f)); }
};

/// What a stretch of memory is in registers: 32-bit ones, or a single smaller word.
template <class Word, bool kWhole>
struct RegisterOf {
  using Type = Word;
};
template <class Word>
struct RegisterOf<Word, true> {
  using Type = u32;
};

/// kCount neighbouring elements, aligned as a whole: one load or store. In registers, pairs of 16-bit elements stay
/// pairs.
template <class Storage_, int kCount_>
struct Pack {
  using Storage = Storage_;
  using Word = typename Storage::Word;
  static constexpr int kCount = kCount_, kBytes = kCount * int(sizeof(Word));
  using Register = typename RegisterOf<Word, kBytes % 4 == 0>::Type;
  static constexpr int kRegisters = kBytes / int(sizeof(Register));
  struct alignas(kBytes) Registers {
    Register r[kRegisters];
  };
  Registers registers;

  static STROBE_DEVICE Pack load(const char* from) { return {*reinterpret_cast<const Registers*>(from)}; }
  STROBE_DEVICE void store(char* to) const { *reinterpret_cast<Registers*>(to) = registers; }

  STROBE_DEVICE void values(float* x) const {
#pragma unroll
    for (int n = 0; n < kRegisters; ++n) {
      if constexpr (sizeof(Register) > sizeof(Word)) {
        x[2 * n] = Storage::Pair::low(registers.r[n]);
        x[2 * n + 1] = Storage::Pair::high(registers.r[n]);
      } else {
        x[n] = Storage::value(registers.r[n]);
      }
    }
  }
  static STROBE_DEVICE Pack of(const float* x) {
    Pack pack;
#pragma unroll
    for (int n = 0; n < kRegisters; ++n) {
      if constexpr (sizeof(Register) > sizeof(Word)) {
        pack.registers.r[n] = Storage::Pair::pack(x[2 * n], x[2 * n + 1]);
      } else {
        pack.registers.r[n] = Storage::word(x[n]);
      }
    }
    return pack;
  }
  /// Keeps the compiler from carrying values() over from before: of 16-bit elements they take twice the registers.
  STROBE_DEVICE void forget_values() {
    if constexpr (sizeof(Register) > sizeof(Word)) {
#pragma unroll
      for (u32& r : registers.r) ptx::renew(r);
    }
  }
};

/// As many elements as 16 bytes hold.
template <int kElement>
constexpr int kVectorElements = 16 / int(sizeof(typename StorageOf<kElement>::Word));

/// Writes elements [first, first + kCount) of a row. `vectors`: the row is aligned to 16 bytes, and `first` is a
/// multiple of kCount.
template <int kCount>
STROBE_DEVICE void store_floats(char* row, Element type, i64 first, bool vectors, const float* x) {
  if constexpr (kCount % 4 == 0) {
    if (vectors && type == Element::kFloat32) {
#pragma unroll
      for (int e = 0; e < kCount; e += 4) Pack<StorageOf<0>, 4>::of(x + e).store(row + (first + e) * 4);
      return;
    }
    if (vectors && type == Element::kFloat16) return Pack<StorageOf<1>, kCount>::of(x).store(row + first * 2);
    if (vectors) return Pack<StorageOf<2>, kCount>::of(x).store(row + first * 2);
  }
#pragma unroll
  for (int e = 0; e < kCount; ++e) store_float(row, type, first + e, x[e]);
}

/// a / b for a >= 0 and b > 0; 64-bit division costs a hundred instructions and is seldom needed.
STROBE_DEVICE i64 quotient(i64 a, i64 b) { return ((a | b) >> 32) == 0 ? i64(u32(a) / u32(b)) : a / b; }

}  // namespace strobe::cuda
