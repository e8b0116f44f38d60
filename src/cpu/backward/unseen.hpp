// Keys that no query sees may hold anything, NaN too, and must not reach a gradient: a weight of zero would not stop
// them. Rows that are not finite are rare, so only for those does the kernel look whether any query sees the key.
#pragma once

#include "cpu/backward/staging.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Whether query i of the g-th head sees key j.
STROBE_INLINE bool sees(const BackwardTask& task, std::int64_t g, std::int64_t i, std::int64_t j) {
  const std::int64_t position = i + task.position_shift;
  if (j >= task.prefix && (j < position - task.left || j > position + task.right)) return false;
  if (task.query_documents &&
      task.query_documents[i * task.query_document_stride] != task.key_documents[j * task.key_document_stride]) {
    return false;
  }
  const TaskScores &mask = task.mask, &blocks = task.block_mask;
  if (mask.data && !mask.data[g * mask.head_stride + i * mask.row_stride + j * mask.column_stride]) return false;
  return !blocks.data || blocks.data[g * blocks.head_stride + i / task.block_rows * blocks.row_stride +
                                     j / task.block_columns * blocks.column_stride];
}

bool is_seen(const BackwardTask& task, std::int64_t key) {
  for (std::int64_t g = 0; g < task.group; ++g) {
    for (std::int64_t i = 0; i < task.queries; ++i) {
      if (sees(task, g, i, key)) return true;
    }
  }
  return false;
}

STROBE_INLINE bool is_finite(const float* row, int dim) {
  Floats total = zero();
  for (int v = 0; v < vectors_of(dim); ++v) total = fma(load(row + v * kLanes), zero(), total);
  return sum(total) == 0.0f;
}

/// Makes zeros of the staged rows of keys [first, first + count) that are not finite and that no query sees.
void forget_unseen(const BackwardTask& task, std::int64_t first, int count, int dim, float* rows, int stride) {
  for (int row = 0; row < count; ++row) {
    float* const at = rows + row * stride;
    if (!is_finite(at, dim) && !is_seen(task, first + row)) clear_rows(at, 1, dim, stride);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
