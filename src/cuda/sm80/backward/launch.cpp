// The host side of the backward kernels: whom they serve, with which variants and tiles, workspace, and the launches.
#include <algorithm>

#include "cuda/families.hpp"
#include "cuda/sm80/backward/bias.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm80_backward {
namespace {

using sm80::BackwardParams;
using sm80::BackwardTile;
using sm80::BuiltDims;

constexpr float kLog2E = 1.44269504f;
constexpr unsigned kPrepareThreads = 256, kSinkThreads = 256;  // as in prepare.cuh and sink.cuh

int element_bytes(const Problem& problem) { return int(size_of(problem.query_type)); }

BuiltDims built_dims(const Problem& problem) { return sm80::built_dims(int(problem.head_dim), int(problem.value_dim)); }

BackwardTile tile_of(const Problem& problem, const CudaDevice& device) {
  const BuiltDims dims = built_dims(problem);
  return sm80::backward_tile(element_bytes(problem), dims.head, dims.value, features_of(problem), device.architecture);
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool wants_rows(const Problem& problem) {
  return problem.wants_grad_query || problem.wants_grad_key || problem.wants_grad_value;
}

/// A kernel after the main one, to round dQ where key blocks add to it in any order.
bool has_finish(const Problem& problem) { return problem.wants_grad_query && !problem.deterministic; }

/// Where the arrays of BackwardParams lie in the workspace, in bytes.
struct Layout {
  std::size_t facts = 0, sums = 0, turns = 0, sink_parts = 0, bytes = 0, sums_bytes = 0;
};

Layout layout_of(const Problem& problem, const BackwardTile& tile, int head_dim) {
  Layout layout;
  const auto place = [&](std::size_t& offset, bool needed, std::size_t bytes) {
    offset = layout.bytes;
    if (needed) layout.bytes += (bytes + 255) / 256 * 256;
  };
  const auto tiles = std::size_t(problem.query_heads * query_slots_of(problem, tile.query_tile));
  layout.sums_bytes = tiles * std::size_t(tile.query_tile) * std::size_t(head_dim) * sizeof(float);
  place(layout.facts, true, tiles * std::size_t(sm80::fact_floats(tile.query_tile)) * sizeof(float));
  place(layout.sums, problem.wants_grad_query, layout.sums_bytes);
  place(layout.turns, problem.wants_grad_query && problem.deterministic, tiles * sizeof(int));
  place(layout.sink_parts, problem.wants_grad_sink, tiles * sizeof(float));
  return layout;
}

/// About how many KV heads' blocks run side by side. As many as have their queries, gradients and sums of dQ in
/// half of the second-level cache, and enough that their blocks keep all multiprocessors busy some times over; but
/// under a causal mask, where all blocks of a head begin at its last tile and wait for one another there, as many as
/// there are, once sequences are long. README.md has the measurements.
int heads_per_group(const Problem& problem, const CudaDevice& device, const BackwardTile& tile, std::int64_t heads) {
  if (problem.causal && problem.deterministic && problem.query_length >= 2048) return int(heads);
  constexpr std::int64_t kBlocksAMultiprocessor = 4;
  const std::int64_t bytes = problem.query_length * problem.group() *
                             (element_bytes(problem) * (problem.head_dim + problem.value_dim) + 4 * problem.head_dim);
  const std::int64_t by_cache = device.l2_bytes / 2 / std::max<std::int64_t>(bytes, 1);
  const std::int64_t blocks = std::max<std::int64_t>(ceil_div(problem.key_length, tile.key_block()), 1);
  const std::int64_t by_blocks = device.multiprocessors * kBlocksAMultiprocessor / blocks;
  return int(std::clamp<std::int64_t>(std::max(by_cache, by_blocks), 1, heads));
}

BackwardParams params_for(const Problem& problem, const Buffers& buffers, const CudaDecision& decision,
                          const BackwardTile& tile, const CudaDevice& device, char* workspace) {
  BackwardParams params{};
  params.attention = params_of(problem, buffers);
  params.grad_output = view_of(buffers.grad_output, problem.value_dim);
  if (problem.wants_grad_query) params.grad_query = view_of(buffers.grad_query, problem.head_dim);
  if (problem.wants_grad_key) params.grad_key = view_of(buffers.grad_key, problem.head_dim);
  if (problem.wants_grad_value) params.grad_value = view_of(buffers.grad_value, problem.value_dim);
  if (problem.has_grad_lse) params.grad_lse = view_of(buffers.grad_lse);
  if (problem.wants_grad_sink) params.grad_sink = view_of(buffers.grad_sink);
  if (problem.wants_grad_bias) sm80::describe_grad_bias(problem, buffers, params);

  const KernelKey& key = decision.kernels[0];
  const Layout layout = layout_of(problem, tile, key.values[1]);
  const auto place = [&](std::size_t offset) { return reinterpret_cast<float*>(workspace + offset); };
  params.facts = place(layout.facts);
  params.sums = place(layout.sums);
  if (problem.wants_grad_query && problem.deterministic) params.turns = reinterpret_cast<int*>(place(layout.turns));
  if (problem.wants_grad_sink) params.sink_parts = place(layout.sink_parts);

  params.lse_unit = kLog2E;
  params.query_tile = tile.query_tile;
  params.key_block = tile.key_block();
  params.fact_floats = sm80::fact_floats(tile.query_tile);
  params.turn_parts = 1;
  params.slots = int(query_slots_of(problem, tile.query_tile));
  params.tiles = int(ceil_div(problem.query_length, tile.query_tile));
  params.blocks = int(key_blocks_of(problem, tile.key_block()));
  params.heads = int(blocked_heads_of(problem));
  const int heads = std::max(params.heads, 1);
  params.groups = in_groups(heads, heads_per_group(problem, device, tile, heads));
  return params;
}

}  // namespace

bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const auto refuse = [&](const char* reason) {
    if (why_not != nullptr) *why_not = reason;
    return false;
  };
  if (problem.head_dim > 256 || problem.value_dim > 256) return refuse("head dimensions above 256 are not built");
  if (problem.key_type != problem.query_type) return refuse("keys must be of the queries' type");
  const BackwardTile tile = tile_of(problem, device);
  const std::int64_t most = (std::int64_t(1) << 31) - 1;
  if (key_blocks_of(problem, tile.key_block()) * blocked_heads_of(problem) > most ||
      query_slots_of(problem, tile.query_tile) * problem.query_heads > most) {
    return refuse("more than 2^31 tiles");
  }
  const std::int64_t longest = std::max(problem.query_length, problem.key_length);
  if (longest >= std::int64_t(1) << 30) return refuse("2^30 rows or more");
  if (problem.wants_grad_bias && problem.batch * problem.query_heads > 65535) {
    return refuse("a bias gradient for more than 65535 heads");
  }
  if (problem.query_heads > 65535) return refuse("more than 65535 query heads");
  return true;
}

void decide(const Problem& problem, const CudaDevice& device, CudaDecision& decision) {
  const BuiltDims dims = built_dims(problem);
  const BackwardTile tile = tile_of(problem, device);
  const int type = int(problem.query_type), features = features_of(problem);
  const int tile_features = features == kAllFeatures ? kAllFeatures : 0;  // all that the finishing kernel depends on
  decision.variant = Variant::kPrefill;
  decision.kernels[decision.kernel_count++] = {KernelId::kBackward, {type, dims.head, dims.value, features}};
  decision.kernels[decision.kernel_count++] = {KernelId::kBackwardPrepare, {}};
  if (has_finish(problem)) {
    decision.kernels[decision.kernel_count++] = {KernelId::kBackwardFinish,
                                                 {type, dims.head, dims.value, tile_features}};
  }
  if (problem.wants_grad_sink) decision.kernels[decision.kernel_count++] = {KernelId::kBackwardSink, {}};
  if (problem.wants_grad_bias) {
    decision.kernels[decision.kernel_count++] = {KernelId::kBackwardBias, {type, dims.head, dims.value, features}};
  }
  decision.query_tile = tile.query_tile;
  decision.key_block = tile.key_block();
  decision.workspace_bytes = layout_of(problem, tile, dims.head).bytes;
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher,
         void* workspace) {
  const CudaDevice& device = launcher.device();
  const BackwardTile tile = tile_of(problem, device);
  const KernelKey& key = decision.kernels[0];
  const int head_dim = key.values[1], value_dim = key.values[2];
  const BackwardParams params = params_for(problem, buffers, decision, tile, device, static_cast<char*>(workspace));
  const auto slots = unsigned(params.slots), heads = unsigned(problem.query_heads);
  const bool has_queries = slots > 0 && heads > 0;
  if (problem.wants_grad_query && !problem.deterministic && has_queries) {
    launcher.clear(params.sums, layout_of(problem, tile, head_dim).sums_bytes);
  }
  if (has_queries) launcher.launch(decision.kernels[1], {.x = slots, .y = heads}, kPrepareThreads, 0, &params);
  const unsigned blocks = unsigned(params.blocks) * unsigned(params.heads);
  if (wants_rows(problem) && blocks > 0) {
    launcher.launch(
        key, {.x = blocks}, unsigned(tile.threads()),
        unsigned(sm80::backward_shared(tile, element_bytes(problem), head_dim, value_dim, key.values[3]).bytes),
        &params);
  }
  for (int n = 2; n < decision.kernel_count; ++n) {
    const KernelKey& more = decision.kernels[n];
    if (more.id == KernelId::kBackwardFinish && has_queries) {
      launcher.launch(more, {.x = slots, .y = heads}, unsigned(tile.threads()), 0, &params);
    } else if (more.id == KernelId::kBackwardSink) {
      launcher.launch(more, {.x = heads}, kSinkThreads, 0, &params);
    } else if (more.id == KernelId::kBackwardBias) {
      sm80::launch_grad_bias(problem, more, params, launcher);
    }
  }
}

}  // namespace strobe::cuda::sm80_backward
