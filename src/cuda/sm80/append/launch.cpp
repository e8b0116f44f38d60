// The host side of the append kernel: how blocks share rows, and the launch.
#include "cuda/sm80/append/launch.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "cuda/sm80/append/params.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm80_append {
namespace {

using sm80::AppendParams;
using sm80::RowShare;

constexpr int kVectorBytes = 16;
/// From so many blocks on the GPU is busy anyway, and a thread takes several heads, which turn by the same numbers.
constexpr std::int64_t kManyBlocks = 4096;
constexpr int kHeadsPerThread = 4;

int bits_for(std::int64_t count) { return std::bit_width(std::uint64_t(std::max<std::int64_t>(count, 1) - 1)); }

/// Rows [tokens, heads, dim], of which the first 2 * pairs elements turn. `aligned`: places and lengths of all rows are
/// multiples of 16 bytes.
RowShare share_of(std::int64_t tokens, std::int64_t heads, std::int64_t dim, std::int64_t pairs, std::size_t bytes,
                  bool aligned) {
  RowShare share{};
  share.tokens = heads * dim > 0 ? tokens : 0;
  share.heads = int(heads);
  share.pairs = int(pairs);
  const int vector = kVectorBytes / int(bytes);
  share.vector = aligned && pairs % vector == 0 ? vector : 1;
  share.steps = int(pairs + dim - 2 * pairs) / share.vector;
  constexpr int kThreadBits = std::countr_zero(unsigned(sm80::kAppendThreads));
  share.lane_bits = std::min(bits_for(share.steps), kThreadBits);
  share.slot_bits = std::min(bits_for(heads), kThreadBits - share.lane_bits);
  const std::int64_t blocks = tokens << (share.lane_bits + share.slot_bits) >> kThreadBits;
  if (blocks >= kManyBlocks) share.slot_bits = std::min(share.slot_bits, bits_for(heads / kHeadsPerThread));
  return share;
}

std::int64_t blocks_of(const RowShare& share) {
  const std::int64_t tokens = sm80::kAppendThreads >> (share.lane_bits + share.slot_bits);
  return (share.tokens + tokens - 1) / tokens;
}

bool aligned(const RowsView& from, const RowsView& to) {
  return from.vector_bytes == kVectorBytes && to.vector_bytes == kVectorBytes;
}

void add_new_rows(const Problem& problem, const Buffers& buffers, AppendParams& params) {
  const AttentionParams& p = params.attention;
  params.new_key = view_of(buffers.new_key, problem.head_dim);
  params.new_value = view_of(buffers.new_value, problem.value_dim);
  const std::int64_t tokens = problem.batch * problem.new_length, heads = problem.kv_heads;
  const std::size_t bytes = size_of(problem.key_type);
  params.shares[sm80::kNewKeys] =
      share_of(tokens, heads, problem.head_dim, problem.rotary_dim / 2, bytes, aligned(params.new_key, p.key));
  params.shares[sm80::kNewValues] =
      share_of(tokens, heads, problem.value_dim, 0, bytes, aligned(params.new_value, p.value));
}

void add_queries(const Problem& problem, const Rows& rotated, AppendParams& params) {
  params.rotated_query = view_of(rotated, problem.head_dim);
  // Without a sequence, packed rows belong to none.
  const std::int64_t tokens = problem.batch == 0 ? 0 : problem.total_queries;
  params.shares[sm80::kQueries] =
      share_of(tokens, problem.query_heads, problem.head_dim, problem.rotary_dim / 2, size_of(problem.query_type),
               aligned(params.attention.query, params.rotated_query));
}

void add_tables(const Problem& problem, const Buffers& buffers, AppendParams& params) {
  params.cosine = view_of(buffers.rotary_cos);
  params.sine = view_of(buffers.rotary_sin);
  params.table_type = Element(buffers.rotary_cos.dtype);
  params.positions = int(problem.rotary_positions);
  params.halves = problem.rotary_style == RotaryStyle::kHalves;
  params.turns_by_row = problem.causal || problem.window_left != kUnbounded || problem.window_right != kUnbounded;
  const auto bytes = std::int64_t(size_of(buffers.rotary_cos.dtype));
  params.table_vectors = true;
  for (const Vectors& table : {buffers.rotary_cos, buffers.rotary_sin}) {
    const auto places = std::int64_t(reinterpret_cast<std::uintptr_t>(table.data)) | table.batch_stride * bytes;
    params.table_vectors &= table.stride == 1 && places % kVectorBytes == 0;
  }
}

void launch(const Problem& problem, AppendParams& params, Launcher& launcher) {
  std::int64_t blocks = 0;
  for (RowShare& share : params.shares) {
    share.first_block = int(blocks);
    blocks += blocks_of(share);
  }
  if (blocks > std::numeric_limits<int>::max()) {
    throw Error(ErrorCode::kUnsupported, "new_key and query", "of more rows than one launch takes",
                "given in several calls");
  }
  launcher.launch(kernel_for(problem), {.x = unsigned(blocks)}, sm80::kAppendThreads, 0, &params);
}

}  // namespace

KernelKey kernel_for(const Problem& problem) {
  const bool is_float8 = size_of(problem.key_type) == 1;
  return {KernelId::kAppend, {int(is_float8 ? DataType::kFloat8E4M3 : problem.key_type)}};
}

std::size_t workspace_bytes(const Problem& problem) {
  if (problem.rotary_dim == 0) return 0;
  constexpr std::size_t kAlignment = 256;
  const std::int64_t elements = problem.total_queries * problem.query_heads * problem.head_dim;
  return (std::size_t(elements) * size_of(problem.query_type) + kAlignment - 1) / kAlignment * kAlignment;
}

Buffers prepare(const Problem& problem, const Buffers& buffers, Launcher& launcher, void* workspace) {
  AppendParams params{};
  params.attention = params_of(problem, buffers);
  Buffers prepared = buffers;
  // A cache without a row has no place to append to.
  if (problem.new_length > 0 && problem.total_keys > 0) add_new_rows(problem, buffers, params);
  if (problem.rotary_dim > 0) {
    const std::int64_t row = problem.query_heads * problem.head_dim;
    prepared.query = {.data = static_cast<char*>(workspace),
                      .dtype = problem.query_type,
                      .batch_stride = problem.packed_queries ? 0 : problem.query_length * row,
                      .row_stride = row,
                      .head_stride = problem.head_dim};
    add_queries(problem, prepared.query, params);
    add_tables(problem, buffers, params);
  }
  launch(problem, params, launcher);
  return prepared;
}

void append(const Problem& problem, const Buffers& buffers, Launcher& launcher) {
  if (problem.new_length == 0 || problem.total_keys == 0) return;
  AppendParams params{};
  params.attention = params_of(problem, buffers);
  add_new_rows(problem, buffers, params);
  if (problem.rotary_dim > 0) add_tables(problem, buffers, params);
  launch(problem, params, launcher);
}

}  // namespace strobe::cuda::sm80_append
