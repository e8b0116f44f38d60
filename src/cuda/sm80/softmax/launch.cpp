// The host side of the softmax kernels.
#include "cuda/sm80/softmax/launch.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>

#include "cuda/sm80/softmax/params.hpp"

namespace strobe::cuda::sm80_softmax {
namespace {

using sm80::SoftmaxOperand;
using sm80::SoftmaxParams;

constexpr int kMaxAxes = 4, kMaxOperands = 3;
constexpr int kVectorBytes = 16, kWarpBits = 5, kFewestColumns = 8;
constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

/// An axis other than the softmax's, with the operands' strides.
struct Axis {
  std::int64_t size = 1, strides[kMaxOperands] = {};
};

/// The problem in the operands' common terms.
struct Layout {
  const SoftmaxProblem::Operand* operands[kMaxOperands] = {};  // read ones first, the written one last
  int operand_count = 0;
  Axis axes[kMaxAxes];  // those of more than one row, outermost first
  int axis_count = 0;
  std::int64_t rows = 1, length = 0;

  Layout(const SoftmaxProblem& problem, std::initializer_list<const SoftmaxProblem::Operand*> given)
      : length(problem.length) {
    for (const auto* operand : given) operands[operand_count++] = operand;
    for (int n = 0; n < kMaxAxes; ++n) {
      rows *= problem.outer_shape[n];
      if (problem.outer_shape[n] <= 1) continue;
      Axis& axis = axes[axis_count++];
      axis.size = problem.outer_shape[n];
      for (int o = 0; o < operand_count; ++o) axis.strides[o] = operands[o]->outer_strides[n];
    }
  }

  /// Axes that continue each other in every operand become one.
  void fuse() {
    int kept = 0;
    for (int n = 1; n < axis_count; ++n) {
      Axis &outer = axes[kept], inner = axes[n];
      bool continues = true;
      for (int o = 0; o < operand_count; ++o) continues &= outer.strides[o] == inner.strides[o] * inner.size;
      if (continues) {
        inner.size *= outer.size;
        outer = inner;
      } else {
        axes[++kept] = inner;
      }
    }
    axis_count = std::min(axis_count, kept + 1);
  }

  /// The axis along which the operands' elements lie closest together, if closer than along the softmax's and not of a
  /// few rows only; else -1.
  int closest_axis() const {
    std::int64_t closest = 0;
    for (int o = 0; o < operand_count; ++o) closest += std::abs(operands[o]->stride);
    int best = -1;
    for (int n = 0; n < axis_count; ++n) {
      if (axes[n].size < kFewestColumns) continue;
      std::int64_t distance = 0;
      for (int o = 0; o < operand_count; ++o) distance += std::abs(axes[n].strides[o]);
      if (distance < closest) closest = distance, best = n;
    }
    return best;
  }

  /// Whether rows can be taken 16 bytes at a time: contiguous, of one type, equally far from borders of 16 bytes.
  bool has_vectors() const {
    const SoftmaxProblem::Operand& first = *operands[0];
    const auto bytes = std::int64_t(size_of(first.dtype));
    for (int o = 0; o < operand_count; ++o) {
      if (operands[o]->dtype != first.dtype || operands[o]->stride != 1) return false;
      const auto apart =
          reinterpret_cast<std::intptr_t>(operands[o]->data) - reinterpret_cast<std::intptr_t>(first.data);
      if (apart % kVectorBytes != 0) return false;
      for (int n = 0; n < axis_count; ++n) {
        if ((axes[n].strides[o] - axes[n].strides[0]) * bytes % kVectorBytes != 0) return false;
      }
    }
    return true;
  }
  /// Whether, taken so, rows are whole vectors.
  bool has_whole_vectors() const {
    const auto bytes = std::int64_t(size_of(operands[0]->dtype));
    bool whole = reinterpret_cast<std::intptr_t>(operands[0]->data) % kVectorBytes == 0;
    whole &= length * bytes % kVectorBytes == 0;
    for (int n = 0; n < axis_count; ++n) whole &= axes[n].strides[0] * bytes % kVectorBytes == 0;
    return whole;
  }
};

SoftmaxParams params_of(const Layout& layout) {
  SoftmaxParams params{};
  SoftmaxOperand* const targets[kMaxOperands] = {
      &params.input, layout.operand_count == 3 ? &params.grad_output : &params.output, &params.output};
  for (int o = 0; o < layout.operand_count; ++o) {
    targets[o]->data = layout.operands[o]->data;
    targets[o]->stride = layout.operands[o]->stride;
    targets[o]->type = Element(layout.operands[o]->dtype);
  }
  for (int n = 0; n < kMaxAxes; ++n) params.shape[n] = 1;
  for (int n = 0; n < layout.axis_count; ++n) {
    const int place = kMaxAxes - layout.axis_count + n;
    params.shape[place] = layout.axes[n].size;
    for (int o = 0; o < layout.operand_count; ++o) targets[o]->strides[place] = layout.axes[n].strides[o];
  }
  params.rows = layout.rows;
  params.length = layout.length;
  return params;
}

unsigned grid_of(std::int64_t blocks) {
  if (blocks > kMaxInt) {
    throw Error(ErrorCode::kUnsupported, "input", "of more rows than one launch takes", "given in several calls");
  }
  return unsigned(blocks);
}

int bits_for(std::int64_t count) { return std::bit_width(std::uint64_t(std::max<std::int64_t>(count, 1) - 1)); }

void launch_columns(Layout& layout, int lanes, Launcher& launcher) {
  // The axis of neighbouring rows goes to the end.
  Axis columns;
  if (lanes >= 0) {
    columns = layout.axes[lanes];
    std::move(layout.axes + lanes + 1, layout.axes + layout.axis_count, layout.axes + lanes);
    --layout.axis_count;
  }
  layout.axes[layout.axis_count++] = columns;
  SoftmaxParams params = params_of(layout);
  params.tiles = (columns.size + sm80::kColumns - 1) / sm80::kColumns;
  const KernelKey key{KernelId::kSoftmaxColumns, {int(layout.operand_count == 3)}};
  launcher.launch(key, {.x = grid_of(layout.rows / columns.size * params.tiles)}, sm80::kColumns * sm80::kColumnThreads,
                  0, &params);
}

/// How many threads share a row of so many packs, as a power of two.
int row_bits_for(std::int64_t packs, int held, bool has_edges) {
  constexpr int kMostBits = std::countr_zero(unsigned(sm80::kSoftmaxMostThreads));
  constexpr int kEdgeBits = 4;  // each thread has at most one of up to 14 elements at the ends
  const int least = has_edges ? kEdgeBits : 0;
  // A warp at most, two packs a thread or more; beyond, half of what a thread can hold.
  if (packs <= std::int64_t(held) << kWarpBits) return std::clamp(bits_for((packs + 1) / 2), least, kWarpBits);
  return std::min(bits_for((packs + held / 2 - 1) / (held / 2)), kMostBits);
}

void launch_rows(Layout& layout, Launcher& launcher) {
  SoftmaxParams params = params_of(layout);
  const bool backward = layout.operand_count == 3, vectors = layout.has_vectors();
  const DataType type = layout.operands[0]->dtype;
  const std::int64_t count = vectors ? kVectorBytes / std::int64_t(size_of(type)) : 1;
  params.row_bits =
      row_bits_for((layout.length + count - 1) / count, backward ? sm80::kSoftmaxBackwardHeld : sm80::kSoftmaxHeld,
                   vectors && !layout.has_whole_vectors());
  const int threads = params.row_bits <= kWarpBits ? sm80::kSoftmaxThreads : 1 << params.row_bits;
  const std::int64_t block_rows = threads >> params.row_bits;
  const KernelKey key{KernelId::kSoftmaxRows, {vectors ? int(type) : sm80::kAnyElement, int(backward)}};
  launcher.launch(key, {.x = grid_of((layout.rows + block_rows - 1) / block_rows)}, unsigned(threads), 0, &params);
}

void run(Layout layout, Launcher& launcher) {
  if (layout.rows == 0 || layout.length == 0) return;
  layout.fuse();
  const int lanes = layout.closest_axis();
  if (lanes >= 0) {
    launch_columns(layout, lanes, launcher);
  } else if (layout.length > kMaxInt) {
    // The rows kernel counts with 32 bits.
    launch_columns(layout, layout.axis_count - 1, launcher);
  } else {
    launch_rows(layout, launcher);
  }
}

}  // namespace

void softmax(const SoftmaxProblem& problem, Launcher& launcher) {
  run(Layout(problem, {&problem.input, &problem.output}), launcher);
}

void softmax_backward(const SoftmaxProblem& problem, Launcher& launcher) {
  run(Layout(problem, {&problem.output, &problem.grad_output, &problem.grad_input}), launcher);
}

}  // namespace strobe::cuda::sm80_softmax
