// Online softmax of one instruction set (Milakov and Gimelshein, arXiv 1805.02867): blocks of a row are staged as
// floats in L1; running maximum and sum take a block at a time. A row that fits into one block is read once. Two shapes
// of the same loops: one row with lanes along it, or many neighbouring rows with a lane each.
#include "cpu/softmax/task.hpp"

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

constexpr int kBlock = 4096;       // floats staged at a time: 16 KiB
constexpr int kStep = 4 * kLanes;  // floats a loop takes at once
constexpr int kRowsPerBlock = kBlock / kSoftmaxColumns;

STROBE_INLINE int smaller(std::int64_t a, std::int64_t b) { return int(a < b ? a : b); }
STROBE_INLINE int rounded_up(int count) { return (count + kStep - 1) / kStep * kStep; }

// Staging: `count` elements that are `stride` apart become floats; what rounds them up to kStep becomes `padding`.

template <typename T>
STROBE_INLINE void stage_elements(const T* from, std::int64_t stride, int count, float* to) {
  int j = 0;
  if (stride == 1) {
    for (; j + kLanes <= count; j += kLanes) store(to + j, load(from + j));
    if (j < count) store(to + j, load_first(from + j, count - j));
    return;
  }
  for (; j < count; j += kLanes) {
    T lanes[kLanes] = {};
    for (int lane = 0; lane < kLanes && j + lane < count; ++lane) lanes[lane] = from[(j + lane) * stride];
    store(to + j, load(lanes));
  }
}

void stage(const SoftmaxOperand& operand, std::int64_t first, std::int64_t stride, int count, float padding,
           float* to) {
  switch (operand.dtype) {
    case DataType::kFloat16:
      stage_elements(reinterpret_cast<const Half*>(operand.data) + first, stride, count, to);
      break;
    case DataType::kBFloat16:
      stage_elements(reinterpret_cast<const BFloat16*>(operand.data) + first, stride, count, to);
      break;
    default:
      stage_elements(reinterpret_cast<const float*>(operand.data) + first, stride, count, to);
  }
  for (int j = count; j < rounded_up(count); ++j) to[j] = padding;
}

template <typename T>
STROBE_INLINE void unstage_elements(const float* from, std::int64_t stride, int count, T* to) {
  int j = 0;
  if (stride == 1) {
    for (; j + kLanes <= count; j += kLanes) store(to + j, load(from + j));
    if (j < count) store_first(to + j, load(from + j), count - j);
    return;
  }
  for (; j < count; j += kLanes) {
    T lanes[kLanes];
    store(lanes, load(from + j));
    for (int lane = 0; lane < kLanes && j + lane < count; ++lane) to[(j + lane) * stride] = lanes[lane];
  }
}

void unstage(const float* from, const SoftmaxOperand& operand, std::int64_t first, std::int64_t stride, int count) {
  switch (operand.dtype) {
    case DataType::kFloat16:
      return unstage_elements(from, stride, count, reinterpret_cast<Half*>(operand.data) + first);
    case DataType::kBFloat16:
      return unstage_elements(from, stride, count, reinterpret_cast<BFloat16*>(operand.data) + first);
    default:
      return unstage_elements(from, stride, count, reinterpret_cast<float*>(operand.data) + first);
  }
}

// One row, lanes along it.

STROBE_INLINE float exponential(float x) { return sum(exp2(broadcast(x * kLog2E))) / kLanes; }

float block_maximum(const float* x, int count) {
  Floats m[4];
  for (Floats& lane : m) lane = broadcast(kMinusInfinity);
  for (int j = 0; j < count; j += kStep) {
    for (int v = 0; v < 4; ++v) m[v] = max(m[v], load(x + j + v * kLanes));
  }
  return largest(max(max(m[0], m[1]), max(m[2], m[3])));
}

/// x becomes exp(x - maximum); the sum is returned.
float exponentiate(float* x, int count, float maximum) {
  Floats total[4] = {zero(), zero(), zero(), zero()};
  const Floats m = broadcast(maximum), log2e = broadcast(kLog2E);
  for (int j = 0; j < count; j += kStep) {
    for (int v = 0; v < 4; ++v) {
      const Floats e = exp2(mul(sub(load(x + j + v * kLanes), m), log2e));
      store(x + j + v * kLanes, e);
      total[v] = add(total[v], e);
    }
  }
  return sum(add(add(total[0], total[1]), add(total[2], total[3])));
}

void scale_block(float* x, int count, float factor) {
  const Floats f = broadcast(factor);
  for (int j = 0; j < count; j += kLanes) store(x + j, mul(load(x + j), f));
}

void forward_row(const SoftmaxTask& task) {
  alignas(64) float x[kBlock];
  const std::int64_t in = task.input.stride, out = task.output.stride;
  float maximum = kMinusInfinity, total = 0.0f;
  for (std::int64_t first = 0; first < task.length; first += kBlock) {
    const int count = smaller(kBlock, task.length - first);
    stage(task.input, first * in, in, count, kMinusInfinity, x);
    const float block = block_maximum(x, count);
    const float next = block > maximum ? block : maximum;
    // Nothing but -inf so far: any finite maximum gives zeros, and never -inf - -inf.
    const float finite = next == kMinusInfinity ? 0.0f : next;
    const float correction = exponential(maximum - finite);
    total = total * correction + exponentiate(x, count, finite);
    maximum = next;
  }
  const float factor = total == 0.0f ? 0.0f : 1.0f / total;
  for (std::int64_t first = 0; first < task.length; first += kBlock) {
    const int count = smaller(kBlock, task.length - first);
    if (task.length > kBlock) {
      stage(task.input, first * in, in, count, kMinusInfinity, x);
      exponentiate(x, count, maximum == kMinusInfinity ? 0.0f : maximum);
    }
    scale_block(x, count, factor);
    unstage(x, task.output, first * out, out, count);
  }
}

float dot_block(const float* a, const float* b, int count) {
  Floats total[4] = {zero(), zero(), zero(), zero()};
  for (int j = 0; j < count; j += kStep) {
    for (int v = 0; v < 4; ++v) total[v] = fma(load(a + j + v * kLanes), load(b + j + v * kLanes), total[v]);
  }
  return sum(add(add(total[0], total[1]), add(total[2], total[3])));
}

void backward_row(const SoftmaxTask& task) {
  alignas(64) float y[kBlock], g[kBlock];
  const std::int64_t in = task.input.stride, grad = task.grad_output.stride, out = task.output.stride;
  float dot = 0.0f;
  for (std::int64_t first = 0; first < task.length; first += kBlock) {
    const int count = smaller(kBlock, task.length - first);
    stage(task.input, first * in, in, count, 0.0f, y);
    stage(task.grad_output, first * grad, grad, count, 0.0f, g);
    dot += dot_block(y, g, count);
  }
  for (std::int64_t first = 0; first < task.length; first += kBlock) {
    const int count = smaller(kBlock, task.length - first);
    if (task.length > kBlock) {
      stage(task.input, first * in, in, count, 0.0f, y);
      stage(task.grad_output, first * grad, grad, count, 0.0f, g);
    }
    for (int j = 0; j < count; j += kLanes) store(y + j, mul(load(y + j), sub(load(g + j), broadcast(dot))));
    unstage(y, task.output, first * out, out, count);
  }
}

// Neighbouring rows, one a lane: the same passes down the columns of a staged [kRowsPerBlock, width] tile.

STROBE_INLINE void stage_tile(const SoftmaxOperand& operand, std::int64_t first, int rows, int columns, int width,
                              float* to) {
  for (int j = 0; j < rows; ++j) stage(operand, (first + j) * operand.stride, 1, columns, 0.0f, to + j * width);
}
STROBE_INLINE void unstage_tile(const float* from, const SoftmaxOperand& operand, std::int64_t first, int rows,
                                int columns, int width) {
  for (int j = 0; j < rows; ++j) unstage(from + j * width, operand, (first + j) * operand.stride, 1, columns);
}

STROBE_INLINE Floats finite_maximum(Floats m) {
  const Floats nothing = broadcast(kMinusInfinity);
  return select(equal(m, nothing), zero(), m);
}

void forward_columns(const SoftmaxTask& task) {
  alignas(64) float x[kBlock], maximum[kSoftmaxColumns], total[kSoftmaxColumns];
  const int width = rounded_up(task.columns);
  const Floats log2e = broadcast(kLog2E);
  for (int c = 0; c < width; c += kLanes) {
    store(maximum + c, broadcast(kMinusInfinity));
    store(total + c, zero());
  }
  for (std::int64_t first = 0; first < task.length; first += kRowsPerBlock) {
    const int rows = smaller(kRowsPerBlock, task.length - first);
    stage_tile(task.input, first, rows, task.columns, width, x);
    for (int c = 0; c < width; c += kLanes) {
      const Floats old = load(maximum + c);
      Floats m = old;
      for (int j = 0; j < rows; ++j) m = max(load(x + j * width + c), m);
      const Floats finite = finite_maximum(m);
      Floats l = zero();
      for (int j = 0; j < rows; ++j) {
        const Floats e = exp2(mul(sub(load(x + j * width + c), finite), log2e));
        store(x + j * width + c, e);
        l = add(l, e);
      }
      store(maximum + c, m);
      store(total + c, fma(load(total + c), exp2(mul(sub(old, finite), log2e)), l));
    }
  }
  for (int c = 0; c < width; c += kLanes) {
    const Floats l = load(total + c);
    store(total + c, select(equal(l, zero()), zero(), div(broadcast(1.0f), l)));
  }
  for (std::int64_t first = 0; first < task.length; first += kRowsPerBlock) {
    const int rows = smaller(kRowsPerBlock, task.length - first);
    const bool again = task.length > kRowsPerBlock;
    if (again) stage_tile(task.input, first, rows, task.columns, width, x);
    for (int c = 0; c < width; c += kLanes) {
      const Floats factor = load(total + c), finite = finite_maximum(load(maximum + c));
      for (int j = 0; j < rows; ++j) {
        Floats e = load(x + j * width + c);
        if (again) e = exp2(mul(sub(e, finite), log2e));
        store(x + j * width + c, mul(e, factor));
      }
    }
    unstage_tile(x, task.output, first, rows, task.columns, width);
  }
}

void backward_columns(const SoftmaxTask& task) {
  alignas(64) float y[kBlock], g[kBlock], dot[kSoftmaxColumns];
  const int width = rounded_up(task.columns);
  for (int c = 0; c < width; c += kLanes) store(dot + c, zero());
  for (std::int64_t first = 0; first < task.length; first += kRowsPerBlock) {
    const int rows = smaller(kRowsPerBlock, task.length - first);
    stage_tile(task.input, first, rows, task.columns, width, y);
    stage_tile(task.grad_output, first, rows, task.columns, width, g);
    for (int c = 0; c < width; c += kLanes) {
      Floats d = zero();
      for (int j = 0; j < rows; ++j) d = fma(load(y + j * width + c), load(g + j * width + c), d);
      store(dot + c, add(load(dot + c), d));
    }
  }
  for (std::int64_t first = 0; first < task.length; first += kRowsPerBlock) {
    const int rows = smaller(kRowsPerBlock, task.length - first);
    if (task.length > kRowsPerBlock) {
      stage_tile(task.input, first, rows, task.columns, width, y);
      stage_tile(task.grad_output, first, rows, task.columns, width, g);
    }
    for (int j = 0; j < rows; ++j) {
      for (int c = 0; c < width; c += kLanes) {
        float* at = y + j * width + c;
        store(at, mul(load(at), sub(load(g + j * width + c), load(dot + c))));
      }
    }
    unstage_tile(y, task.output, first, rows, task.columns, width);
  }
}

void forward(const SoftmaxTask& task) { task.columns == 1 ? forward_row(task) : forward_columns(task); }
void backward(const SoftmaxTask& task) { task.columns == 1 ? backward_row(task) : backward_columns(task); }

constexpr SoftmaxUnit kUnit{forward, backward};

}  // namespace

const SoftmaxUnit& softmax_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
