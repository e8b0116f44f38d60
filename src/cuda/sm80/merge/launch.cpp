// The host side of the merge kernel.
#include "cuda/sm80/merge/launch.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "cuda/translate.hpp"

namespace strobe::cuda::sm80_merge {
namespace {

using sm80::MergeParams;

constexpr int kVectorBytes = 16, kMaxLaneBits = 5;
/// From so many parts on, four groups of lanes share a row.
constexpr std::int64_t kManySplits = 8;

bool spreads(std::int64_t splits) { return splits >= kManySplits; }

}  // namespace

KernelKey kernel_for(DataType part_type, std::int64_t splits) {
  return {KernelId::kMerge, {int(part_type), int(spreads(splits))}};
}

MergeParams params_of(const MergeProblem& problem) {
  MergeParams params{};
  params.parts = view_of(problem.parts, problem.value_dim);
  params.output = view_of(problem.output, problem.value_dim);
  params.part_lses = view_of(problem.part_lses);
  params.lse = view_of(problem.lse);
  params.part_stride = problem.part_stride;
  params.part_lse_stride = problem.part_lse_stride;
  params.splits = int(problem.splits);
  params.batch = int(problem.batch);
  params.rows = int(problem.rows);
  params.heads = int(problem.heads);
  params.value_dim = int(problem.value_dim);
  const auto bytes = std::int64_t(size_of(problem.parts.dtype));
  const bool parts_aligned = problem.splits <= 1 || problem.part_stride * bytes % kVectorBytes == 0;
  params.vector = params.parts.vector_bytes == kVectorBytes && parts_aligned ? kVectorBytes / int(bytes) : 1;
  const auto vectors = std::uint64_t(problem.value_dim / params.vector);
  // At least as many lanes as classes, so that lanes and classes come round together.
  constexpr int kLeast = std::countr_zero(unsigned(sm80::kMergeClasses));
  params.lane_bits = std::clamp(int(std::bit_width(vectors - 1)), kLeast, kMaxLaneBits);
  return params;
}

std::int64_t part_dim(const Problem& problem) {
  constexpr std::int64_t kElements = kVectorBytes / std::int64_t(sizeof(float));
  return (problem.value_dim + kElements - 1) / kElements * kElements;
}

PartsLayout parts_layout_of(const Problem& problem, std::int64_t splits) {
  constexpr std::int64_t kAlignment = 256, kFloat = sizeof(float);
  const auto aligned = [](std::int64_t bytes) {
    return std::size_t((bytes + kAlignment - 1) / kAlignment * kAlignment);
  };
  PartsLayout layout{};
  layout.part_lses = problem.batch * problem.query_length * problem.query_heads;
  layout.part_elements = layout.part_lses * part_dim(problem);
  if (splits <= 1) return layout;
  layout.lses_at = aligned(splits * layout.part_elements * kFloat);
  layout.bytes = layout.lses_at + aligned(splits * layout.part_lses * kFloat);
  return layout;
}

MergeProblem parts_of(const Problem& problem, const Buffers& buffers, std::int64_t splits, void* workspace) {
  const PartsLayout layout = parts_layout_of(problem, splits);
  const std::int64_t heads = problem.query_heads, rows = problem.query_length;
  MergeProblem parts{};
  parts.splits = splits;
  parts.batch = problem.batch;
  parts.rows = rows;
  parts.heads = heads;
  parts.value_dim = problem.value_dim;
  parts.parts = {.data = static_cast<char*>(workspace),
                 .dtype = DataType::kFloat32,
                 .batch_stride = rows * heads * part_dim(problem),
                 .row_stride = heads * part_dim(problem),
                 .head_stride = part_dim(problem)};
  parts.part_lses = {.data = static_cast<char*>(workspace) + layout.lses_at,
                     .dtype = DataType::kFloat32,
                     .batch_stride = heads * rows,
                     .head_stride = rows,
                     .row_stride = 1};
  parts.part_stride = layout.part_elements;
  parts.part_lse_stride = layout.part_lses;
  parts.output = buffers.output;
  if (problem.has_lse) parts.lse = buffers.lse;
  return parts;
}

void merge(const MergeProblem& problem, Launcher& launcher) {
  const MergeParams params = params_of(problem);
  std::int64_t block_rows = sm80::kMergeThreads >> params.lane_bits;
  if (spreads(problem.splits)) block_rows /= sm80::kMergeClasses;
  const std::int64_t rows = problem.batch * problem.rows * problem.heads;
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
  if (blocks > std::numeric_limits<int>::max()) {
    throw Error(ErrorCode::kUnsupported, "outputs", "of more rows than one launch takes", "merged in several calls");
  }
  launcher.launch(kernel_for(problem.parts.dtype, problem.splits), {.x = unsigned(blocks)}, sm80::kMergeThreads, 0,
                  &params);
}

}  // namespace strobe::cuda::sm80_merge
