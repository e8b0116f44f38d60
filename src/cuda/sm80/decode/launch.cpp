// The host side of the decode kernel: whom it serves, how keys are split, the launches of kernel and merge.
#include <algorithm>

#include "cuda/families.hpp"
#include "cuda/sm80/decode/params.hpp"
#include "cuda/sm80/decode/tiles.hpp"
#include "cuda/sm80/merge/launch.hpp"
#include "cuda/sm90/forward/launch.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm80_decode {
namespace {

using sm80::DecodeParams;
using sm80::DecodeTile;
using sm80::kDecodeRows;
using sm80::kMostJoinedSplits;

/// Query rows a KV head up to which reading keys outweighs computing with them. Those beyond a row group read them once
/// more, which Hopper's forward kernel need not do.
constexpr std::int64_t kMostRows = 32;

/// Splits are multiples of this, so that every warp has steps of its own.
constexpr std::int64_t kSplitUnit = 64;
constexpr std::int64_t kSmallestSplit = 256;
/// With batch_invariant, the split of every sequence, whatever else there is.
constexpr std::int64_t kInvariantSplit = 1024;
/// What a block costs besides its keys, counted in keys: starting, filling its stages, merging its warps.
constexpr std::int64_t kBlockCost = 256;
constexpr std::int64_t kMostRounds = 16;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t unit) { return ceil_div(a, unit) * unit; }

int built_dim(const Problem& problem) { return sm80::built_dim(int(std::max(problem.head_dim, problem.value_dim))); }

std::int64_t row_groups(const Problem& problem) {
  return ceil_div(problem.query_length * problem.group(), kDecodeRows);
}

/// Keys of a split. One block keeps a multiprocessor's share of the memory busy, so multiprocessors go through their
/// blocks one after another, as it were: of the numbers of splits that give all as many, the one with the least to do.
std::int64_t split_keys_of(const Problem& problem, const CudaDevice& device) {
  const std::int64_t keys = std::max<std::int64_t>(problem.key_length, 1);
  if (problem.splits > 0) return round_up(ceil_div(keys, problem.splits), kSplitUnit);
  if (problem.batch_invariant) return kInvariantSplit;
  if (keys <= kSmallestSplit) return round_up(keys, kSplitUnit);
  const std::int64_t blocks = std::max<std::int64_t>(problem.batch * problem.kv_heads * row_groups(problem), 1);
  const std::int64_t multiprocessors = std::max(device.multiprocessors, 1);
  const auto cost = [&](std::int64_t split_keys) {
    return ceil_div(blocks * ceil_div(keys, split_keys), multiprocessors) * (split_keys + kBlockCost);
  };
  std::int64_t best = round_up(keys, kSplitUnit), least = cost(best);
  for (std::int64_t rounds = 1; rounds <= kMostRounds; ++rounds) {
    const std::int64_t splits = rounds * multiprocessors / blocks;
    if (splits <= 1) continue;
    const std::int64_t split_keys = std::max(round_up(ceil_div(keys, splits), kSplitUnit), kSmallestSplit);
    const std::int64_t costs = cost(split_keys);
    if (costs >= least) continue;
    best = split_keys;
    least = costs;
  }
  return best;
}

/// Whether the last block of a row group merges its parts.
bool merges_itself(std::int64_t splits) { return splits > 1 && splits <= kMostJoinedSplits; }

/// Of parts, and behind them the counts of blocks that wrote them.
std::size_t workspace_bytes(const Problem& problem, std::int64_t splits) {
  constexpr std::int64_t kAlignment = 256, kCount = sizeof(std::uint64_t);
  const std::size_t parts = sm80_merge::parts_layout_of(problem, splits).bytes;
  if (!merges_itself(splits)) return parts;
  return parts + std::size_t(round_up(problem.batch * problem.kv_heads * row_groups(problem) * kCount, kAlignment));
}

sm80::PlainRows plain_rows(const RowsView& view) {
  const auto bytes = std::int64_t(size_of(DataType(view.type)));
  return {.data = view.data,
          .batch_bytes = view.batch_stride * bytes,
          .head_bytes = view.head_stride * bytes,
          .row_bytes = view.row_stride * bytes};
}

/// Whether every sequence has all keys of a tensor, whose rows may be copied 16 bytes at a time, and every query sees
/// them.
bool is_plain(const Problem& problem, const AttentionParams& p) {
  constexpr int kChunkBytes = 16;
  if (p.key.vector_bytes != kChunkBytes || p.value.vector_bytes != kChunkBytes) return false;
  if (problem.key_type == DataType::kFloat8E4M3 || problem.key_type == DataType::kFloat8E5M2) return false;
  if (problem.packed_keys || problem.page_size > 0 || problem.has_cache_index) return false;
  if (problem.has_key_lengths || problem.has_query_lengths) return false;
  const std::int64_t first = p.bottom_right ? problem.key_length - problem.query_length : 0;
  const std::int64_t last = first + problem.query_length - 1;
  return last - p.left <= 0 && first + p.right + 1 >= problem.key_length;
}

}  // namespace

bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const auto refuse = [&](const char* reason) {
    if (why_not != nullptr) *why_not = reason;
    return false;
  };
  if (problem.packed_queries) return refuse("packed queries may be many a sequence");
  if (problem.query_length * problem.group() > kMostRows) return refuse("for at most 32 query rows a KV head");
  if (row_groups(problem) > 1 && sm90_forward::suits_few_rows(problem, device)) {
    return refuse("reads keys twice for more than 16 query rows a KV head");
  }
  if (problem.head_dim > 256 || problem.value_dim > 256) return refuse("head dimensions above 256 are not built");
  if (problem.key_type != problem.query_type) return refuse("keys must be of the queries' type");
  if (problem.dropout > 0.0f) return refuse("has no dropout");
  if (problem.batch > 65535 || problem.kv_heads * std::max<std::int64_t>(row_groups(problem), 1) > 65535) {
    return refuse("more than 65535 sequences or heads");
  }
  const int dim = built_dim(problem), bytes = sm80::tile_bytes(int(size_of(problem.query_type)));
  if (sm80::decode_shared_bytes(bytes, dim, dim, device.architecture) > device.shared_bytes_per_block) {
    return refuse("too little shared memory a block");
  }
  return true;
}

void decide(const Problem& problem, const CudaDevice& device, CudaDecision& decision) {
  const int dim = built_dim(problem);
  decision.variant = Variant::kDecode;
  decision.kernels[decision.kernel_count++] = {KernelId::kDecode,
                                               {int(problem.query_type), dim, dim, features_of(problem)}};
  decision.query_tile = kDecodeRows;
  decision.key_block = sm80::kDecodeStep;
  const std::int64_t split_keys = split_keys_of(problem, device);
  if (problem.key_length <= split_keys) return;
  decision.split_keys = split_keys;
  decision.max_splits = ceil_div(problem.key_length, split_keys);
  if (decision.max_splits > kMostJoinedSplits) {
    decision.kernels[decision.kernel_count++] = sm80_merge::kernel_for(DataType::kFloat32, decision.max_splits);
  }
  decision.workspace_bytes = workspace_bytes(problem, decision.max_splits);
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher,
         void* workspace) {
  if (problem.batch == 0 || problem.query_length == 0 || problem.query_heads == 0) return;
  const KernelKey& key = decision.kernels[0];
  const int dim = key.values[1], architecture = launcher.device().architecture;
  const std::int64_t splits = decision.max_splits;

  DecodeParams params{};
  describe(problem, buffers, params.attention);
  params.plain = is_plain(problem, params.attention);
  params.key_length = int(problem.key_length);
  params.head_dim = int(problem.head_dim);
  params.value_dim = int(problem.value_dim);
  params.key = plain_rows(params.attention.key);
  params.value = plain_rows(params.attention.value);
  params.row_groups = int(row_groups(problem));
  params.inverse_group = unsigned(ceil_div(1 << 16, problem.group()));
  params.split_keys = int(decision.split_keys > 0 ? decision.split_keys : round_up(problem.key_length + 1, kSplitUnit));
  params.splits = int(splits);
  MergeProblem parts{};
  if (splits > 1) {
    parts = sm80_merge::parts_of(problem, buffers, splits, workspace);
    params.attention.output = view_of(parts.parts, sm80_merge::part_dim(problem));
    params.attention.lse = view_of(parts.part_lses);
    params.part_stride = parts.part_stride;
    params.part_lse_stride = parts.part_lse_stride;
    params.merge = sm80_merge::params_of(parts);
    if (merges_itself(splits)) {
      char* const counts = static_cast<char*>(workspace) + sm80_merge::parts_layout_of(problem, splits).bytes;
      params.arrivals = reinterpret_cast<unsigned long long*>(counts);
      params.tag = fresh_tag();
    }
  }
  const int bytes = sm80::tile_bytes(int(size_of(problem.query_type)));
  const DecodeTile tile = sm80::decode_tile(bytes, dim, dim, architecture);
  launcher.launch(key,
                  {.x = unsigned(splits),
                   .y = unsigned(problem.kv_heads) * unsigned(params.row_groups),
                   .z = unsigned(problem.batch)},
                  unsigned(tile.threads()), unsigned(sm80::decode_shared_bytes(bytes, dim, dim, architecture)),
                  &params);
  if (splits > kMostJoinedSplits) sm80_merge::merge(parts, launcher);
}

}  // namespace strobe::cuda::sm80_decode
