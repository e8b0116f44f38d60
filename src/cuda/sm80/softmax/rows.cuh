// Rows along which neighbouring threads find neighbouring elements. 2^row_bits threads share a row, at most a block,
// and hold it in registers where it fits: then memory is read once. Longer rows are read twice, the second time from
// their end, of which a cache may still have something.
#pragma once

#include "cuda/sm80/softmax/online.cuh"

namespace strobe::cuda::sm80 {

/// 16 bytes of a contiguous row whose elements have the compiled type.
template <int kType>
struct RowPack {
  using P = Pack<StorageOf<kType>, kVectorElements<kType>>;
  static constexpr int kCount = P::kCount;
  P pack;

  /// From pack to pack of a row.
  static STROBE_DEVICE i64 bytes(const SoftmaxOperand&) { return P::kBytes; }
  static STROBE_DEVICE RowPack of(const float (&x)[kCount]) { return {P::of(x)}; }
  static STROBE_DEVICE RowPack load(const SoftmaxOperand&, const char* from) { return {P::load(from)}; }
  STROBE_DEVICE void store(const SoftmaxOperand&, char* to) const { pack.store(to); }
  STROBE_DEVICE void values(float (&x)[kCount]) const { pack.values(x); }
  STROBE_DEVICE void forget_values() { pack.forget_values(); }
};

/// A single element of any type; elements at any distance.
template <>
struct RowPack<kAnyElement> {
  static constexpr int kCount = 1;
  float x_;

  static STROBE_DEVICE i64 bytes(const SoftmaxOperand& operand) { return operand.stride * size_of(operand.type); }
  static STROBE_DEVICE RowPack of(const float (&x)[1]) { return {x[0]}; }
  static STROBE_DEVICE RowPack load(const SoftmaxOperand& operand, const char* from) {
    return {load_float(from, operand.type, 0)};
  }
  STROBE_DEVICE void store(const SoftmaxOperand& operand, char* to) const { store_float(to, operand.type, 0, x_); }
  STROBE_DEVICE void values(float (&x)[1]) const { x[0] = x_; }
  STROBE_DEVICE void forget_values() {}
};

/// How a row is shared out: whole packs, a stretch of kHeld a thread at a time; and fewer than two packs of elements at
/// its ends ("edges"), which lie across the borders of 16 bytes, one a thread.
template <int kHeld>
struct RowWork {
  int packs;  // 0 for threads without a row
  int first;  // elements before the first pack
  int edge;   // the thread's element at an end of the row; -1: none
  int bits, thread;

  STROBE_DEVICE int stretches() const { return packs / (kHeld << bits) + (packs % (kHeld << bits) != 0); }
  STROBE_DEVICE int left(int stretch) const { return smaller(packs - stretch * (kHeld << bits), kHeld << bits); }
  /// How many packs of a stretch some thread has, and how many this one has.
  STROBE_DEVICE int held(int stretch) const { return (left(stretch) + (1 << bits) - 1) >> bits; }
  STROBE_DEVICE int mine(int stretch) const { return (left(stretch) - thread + (1 << bits) - 1) >> bits; }
};

/// One operand of a row, as a thread sees it.
template <class R, int kHeld>
struct RowOperand {
  const SoftmaxOperand& operand;
  char* row;
  char* mine;  // its first pack

  STROBE_DEVICE RowOperand(const SoftmaxParams& p, const SoftmaxOperand& o, i64 index, const RowWork<kHeld>& work)
      : operand(o), row(row_address(p, o, index)) {
    mine = row + work.first * i64(size_of(o.type)) + work.thread * R::bytes(o);
  }
  STROBE_DEVICE char* pack(const RowWork<kHeld>& work, int stretch, int n) const {
    return mine + (i64(stretch * kHeld + n) << work.bits) * R::bytes(operand);
  }
  STROBE_DEVICE void load(const RowWork<kHeld>& work, int stretch, float otherwise, R (&x)[kHeld]) const {
    float none[R::kCount];
#pragma unroll
    for (int e = 0; e < R::kCount; ++e) none[e] = otherwise;
    const int count = work.mine(stretch);
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      x[n] = R::of(none);
      if (n < count) x[n] = R::load(operand, pack(work, stretch, n));
    }
  }
  STROBE_DEVICE float edge(const RowWork<kHeld>& work, float otherwise) const {
    return work.edge < 0 ? otherwise : load_float(row, operand.type, work.edge);
  }
};

template <class R, int kHeld>
STROBE_DEVICE RowWork<kHeld> row_work(const SoftmaxParams& p, i64& row) {
  const int rows = int(blockDim.x) >> p.row_bits, thread = int(threadIdx.x) & ((1 << p.row_bits) - 1);
  row = i64(blockIdx.x) * rows + (int(threadIdx.x) >> p.row_bits);
  RowWork<kHeld> work{.packs = 0, .first = 0, .edge = -1, .bits = p.row_bits, .thread = thread};
  const bool there = row < p.rows;
  row = there ? row : p.rows - 1;
  if (!there) return work;
  const int length = int(p.length);
  if constexpr (R::kCount == 1) {
    work.packs = length;
  } else {
    // All operands are equally far from the next border of 16 bytes.
    const int behind = int(u64(row_address(p, p.output, row)) % 16) / size_of(p.output.type);
    work.first = smaller((R::kCount - behind) % R::kCount, length);
    work.packs = (length - work.first) / R::kCount;
    const int last = work.first + work.packs * R::kCount;
    if (thread < work.first + length - last) work.edge = thread < work.first ? thread : last + thread - work.first;
  }
  return work;
}

template <int kType>
STROBE_DEVICE void softmax_rows(const SoftmaxParams& p) {
  using R = RowPack<kType>;
  constexpr int kHeld = kSoftmaxHeld, kCount = R::kCount;
  i64 row;
  const RowWork<kHeld> work = row_work<R, kHeld>(p, row);
  const RowOperand<R, kHeld> input(p, p.input, row, work), output(p, p.output, row, work);
  const int stretches = work.stretches();
  const float edge = input.edge(work, minus_infinity());
  R x[kHeld];

  Online online;
  online.raise(fmaxf(online.largest, edge));
  online.sum += online.weight(edge);
#pragma unroll 1
  for (int s = 0; s < stretches; ++s) {
    input.load(work, s, minus_infinity(), x);
    const int held = work.held(s);
    float largest = online.largest, values[kCount];
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      if (n >= held) continue;
      x[n].values(values);
#pragma unroll
      for (int e = 0; e < kCount; ++e) largest = fmaxf(largest, values[e]);
    }
    online.raise(largest);
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      if (n >= held) continue;
      x[n].forget_values();
      x[n].values(values);
#pragma unroll
      for (int e = 0; e < kCount; ++e) online.sum += online.weight(values[e]);
    }
  }
  combine(online, 1 << work.bits);

  const float factor = online.factor();
#pragma unroll 1
  for (int s = stretches - 1; s >= 0; --s) {
    if (s != stretches - 1) input.load(work, s, minus_infinity(), x);
    const int count = work.mine(s);
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      if (n >= count) continue;
      float values[kCount];
      x[n].forget_values();
      x[n].values(values);
#pragma unroll
      for (int e = 0; e < kCount; ++e) values[e] = online.weight(values[e]) * factor;
      R::of(values).store(p.output, output.pack(work, s, n));
    }
  }
  if (work.edge >= 0) store_float(output.row, p.output.type, work.edge, online.weight(edge) * factor);
}

template <int kType>
STROBE_DEVICE void softmax_backward_rows(const SoftmaxParams& p) {
  using R = RowPack<kType>;
  constexpr int kHeld = kSoftmaxBackwardHeld, kCount = R::kCount;
  i64 row;
  const RowWork<kHeld> work = row_work<R, kHeld>(p, row);
  const RowOperand<R, kHeld> input(p, p.input, row, work), upstream(p, p.grad_output, row, work),
      output(p, p.output, row, work);
  const int stretches = work.stretches();
  const float edge_y = input.edge(work, 0.0f), edge_g = upstream.edge(work, 0.0f);
  R y[kHeld], g[kHeld];

  float dot = edge_y * edge_g;
#pragma unroll 1
  for (int s = 0; s < stretches; ++s) {
    input.load(work, s, 0.0f, y);
    upstream.load(work, s, 0.0f, g);
    const int held = work.held(s);
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      if (n >= held) continue;
      float a[kCount], b[kCount];
      y[n].values(a);
      g[n].values(b);
#pragma unroll
      for (int e = 0; e < kCount; ++e) dot = fmaf(a[e], b[e], dot);
      y[n].forget_values();
      g[n].forget_values();
    }
  }
  combine(dot, 1 << work.bits);

#pragma unroll 1
  for (int s = stretches - 1; s >= 0; --s) {
    if (s != stretches - 1) {
      input.load(work, s, 0.0f, y);
      upstream.load(work, s, 0.0f, g);
    }
    const int count = work.mine(s);
#pragma unroll
    for (int n = 0; n < kHeld; ++n) {
      if (n >= count) continue;
      float a[kCount], b[kCount];
      y[n].values(a);
      g[n].values(b);
#pragma unroll
      for (int e = 0; e < kCount; ++e) a[e] *= b[e] - dot;
      R::of(a).store(p.output, output.pack(work, s, n));
    }
  }
  if (work.edge >= 0) store_float(output.row, p.output.type, work.edge, edge_y * (edge_g - dot));
}

}  // namespace strobe::cuda::sm80
