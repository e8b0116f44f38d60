// The host side of the Hopper backward kernel: whom it serves, with which variant and tile, workspace, and the
// launches. The kernel before it, which looks at rows, is sm80/backward's.
#include <algorithm>

#include "cuda/families.hpp"
#include "cuda/sm80/backward/bias.hpp"
#include "cuda/sm90/backward/params.hpp"
#include "cuda/sm90/backward/tiles.hpp"
#include "cuda/sm90/forward/document_blocks.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm90_backward {
namespace {

using sm90::BackwardOptionParams;
using sm90::BackwardTile;
using sm90::DocumentBlocks;

constexpr float kLog2E = 1.44269504f;
constexpr unsigned kPrepareThreads = 256, kSinkThreads = 256;  // as in sm80/backward: prepare.cuh, sink.cuh
/// Below this, half of what the tensor unit does would be for padding, and the portable kernel has tiles of its own.
constexpr std::int64_t kLeastDim = 33, kLargestDim = 256;

int built_dim(const Problem& problem) {
  return sm90::built_backward_dim(int(std::max(problem.head_dim, problem.value_dim)));
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// features_of, and whether there is a prefix. With another option that is one of many.
int own_features_of(const Problem& problem) {
  const int features = features_of(problem);
  const bool prefix = problem.prefix_length > 0 || problem.has_prefix_lengths;
  if (features == kAllFeatures || (prefix && features != 0)) return sm90::kAllBackwardFeatures;
  return prefix ? sm90::kBackwardPrefix : features;
}

/// The gradient of the bias, which is the portable family's kernel (sm80/backward/bias).
KernelKey bias_kernel_of(const Problem& problem) {
  const sm80::BuiltDims dims = sm80::built_dims(int(problem.head_dim), int(problem.value_dim));
  return {KernelId::kBackwardBias, {int(problem.query_type), dims.head, dims.value, features_of(problem)}};
}

/// Where the arrays of the workspace lie, in bytes.
struct Layout {
  std::size_t facts = 0, sums = 0, turns = 0, sink_parts = 0, items_taken = 0, documents = 0, bytes = 0;
};

Layout layout_of(const Problem& problem, const BackwardTile& tile, int dim) {
  Layout layout;
  const auto place = [&](std::size_t& offset, bool needed, std::size_t bytes) {
    offset = layout.bytes;
    if (needed) layout.bytes += (bytes + 255) / 256 * 256;
  };
  const auto tiles = std::size_t(problem.query_heads * query_slots_of(problem, tile.query_tile));
  place(layout.facts, true, tiles * std::size_t(sm90::backward_fact_floats(tile.query_tile)) * sizeof(float));
  place(layout.sums, problem.wants_grad_query, tiles * std::size_t(tile.query_tile * dim) * sizeof(float));
  place(layout.turns, problem.wants_grad_query, tiles * std::size_t(tile.cluster) * sizeof(int));
  place(layout.sink_parts, problem.wants_grad_sink, tiles * sizeof(float));
  place(layout.items_taken, true, sizeof(int));
  const DocumentBlocks blocks(problem, tile.key_block);
  place(layout.documents, problem.has_documents, blocks.query_bytes() + blocks.key_bytes());
  return layout;
}

/// About how many KV heads' blocks run side by side: as many as have their queries, gradients and sums of dQ in
/// half of the second-level cache, and as many as it takes that blocks of one head, which come to a tile some
/// turn_tiles after one another, find their turns come. Under a causal mask blocks come to an end one after another,
/// and more heads fill the gaps; where many blocks of a head are under way at a time, they share what they read all the
/// same. Packed sequences are taken for as long as they are on average. (Clusters are half as many as multiprocessors,
/// but hand dQ on a tile later, and so come twice as far apart.)
int heads_per_group(const Problem& problem, const CudaDevice& device, const BackwardTile& tile, std::int64_t heads) {
  constexpr std::int64_t kManyVisits = 32;
  const std::int64_t sequences = problem.packed_queries ? std::max<std::int64_t>(problem.batch, 1) : 1;
  const std::int64_t rows = std::max<std::int64_t>(problem.query_length / sequences * problem.group(), 1);
  const std::int64_t bytes = rows * (2 * (problem.head_dim + problem.value_dim) + 4 * problem.head_dim);
  const std::int64_t visits = std::max<std::int64_t>(rows / tile.query_tile / (problem.causal ? 2 : 1), 1);
  const std::int64_t turn_tiles = problem.causal && visits >= kManyVisits ? 4 : 2;
  const std::int64_t by_cache = device.l2_bytes / 2 / bytes;
  const std::int64_t by_turns = ceil_div(device.multiprocessors * turn_tiles, visits);
  return int(std::clamp<std::int64_t>(std::max(by_cache, by_turns), 1, heads));
}

BackwardOptionParams params_for(const Problem& problem, const Buffers& buffers, const BackwardTile& tile, int dim,
                                const CudaDevice& device, char* workspace) {
  BackwardOptionParams params{};
  sm80::BackwardParams& common = params.common;
  AttentionParams& p = common.attention;
  p = params_of(problem, buffers);
  common.grad_output = view_of(buffers.grad_output, problem.value_dim);
  if (problem.wants_grad_query) common.grad_query = view_of(buffers.grad_query, problem.head_dim);
  if (problem.wants_grad_key) common.grad_key = view_of(buffers.grad_key, problem.head_dim);
  if (problem.wants_grad_value) common.grad_value = view_of(buffers.grad_value, problem.value_dim);
  if (problem.has_grad_lse) common.grad_lse = view_of(buffers.grad_lse);
  if (problem.wants_grad_sink) common.grad_sink = view_of(buffers.grad_sink);
  if (problem.wants_grad_bias) sm80::describe_grad_bias(problem, buffers, common);

  const Layout layout = layout_of(problem, tile, dim);
  common.facts = reinterpret_cast<float*>(workspace + layout.facts);
  common.sums = reinterpret_cast<float*>(workspace + layout.sums);
  if (problem.wants_grad_query) common.turns = reinterpret_cast<int*>(workspace + layout.turns);
  if (problem.wants_grad_sink) common.sink_parts = reinterpret_cast<float*>(workspace + layout.sink_parts);
  common.items_taken = reinterpret_cast<int*>(workspace + layout.items_taken);
  common.lse_unit = kLog2E;
  common.query_tile = tile.query_tile;
  common.key_block = tile.key_block;
  common.fact_floats = sm90::backward_fact_floats(tile.query_tile);
  common.turn_parts = tile.cluster;
  common.slots = int(query_slots_of(problem, tile.query_tile));
  common.tiles = int(ceil_div(problem.query_length, tile.query_tile));
  common.blocks = int(key_blocks_of(problem, tile.key_block));
  common.heads = int(blocked_heads_of(problem));
  params.items = common.blocks * common.heads;
  const int heads = std::max(common.heads, 1);
  common.groups = in_groups(heads, heads_per_group(problem, device, tile, heads));

  const long long queries = problem.packed_queries ? 1 : p.batch, caches = problem.packed_keys ? 1 : p.cache_rows;
  const int rows = tile.query_tile, keys = tile.own_keys();
  params.query = tensor_map_of(p.query, {p.head_dim, p.query_length, p.query_heads, queries, rows});
  params.grad_output = tensor_map_of(common.grad_output, {p.value_dim, p.query_length, p.query_heads, queries, rows});
  params.key = tensor_map_of(p.key, {p.head_dim, p.key_length, p.kv_heads, caches, keys});
  params.value = tensor_map_of(p.value, {p.value_dim, p.key_length, p.kv_heads, caches, keys});
  return params;
}

/// Sums up the documents of all blocks.
void sum_up_documents(const Problem& problem, const KernelKey& key, const BackwardTile& tile, char* memory,
                      Launcher& launcher, BackwardOptionParams& params) {
  sm90::ForwardParams documents{};
  documents.attention = params.common.attention;
  sm90::sum_up_documents(problem, key, memory, tile.key_block, launcher, documents);
  params.query_documents = documents.query_documents;
  params.key_documents = documents.key_documents;
  params.query_slots = documents.query_slots;
  params.key_slots = documents.key_slots;
}

}  // namespace

bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const auto refuse = [&](const char* reason) {
    if (why_not != nullptr) *why_not = reason;
    return false;
  };
  if (!device.tensor_maps) return refuse("needs a driver that describes tensors to the GPU (cuTensorMapEncodeTiled)");
  if (problem.key_type != problem.query_type) return refuse("keys must be of the queries' type");
  if (problem.output_type != problem.query_type) return refuse("output's gradient must be of the queries' type");
  const std::int64_t dim = std::max(problem.head_dim, problem.value_dim);
  if (dim > kLargestDim) return refuse("head dimensions above 256 are not built");
  if (dim < kLeastDim) return refuse("would pad head dimensions up to 32 to 64");
  if (!problem.regular_rows) return refuse("rows must start at multiples of 16 bytes, in the order of memory");
  const BackwardTile tile = sm90::backward_tile(int(dim));
  const std::int64_t most = (std::int64_t(1) << 31) - 1;
  if (key_blocks_of(problem, tile.key_block) * blocked_heads_of(problem) > most ||
      query_slots_of(problem, tile.query_tile) * problem.query_heads > most) {
    return refuse("more than 2^31 tiles");
  }
  if (std::max(problem.query_length, problem.key_length) >= std::int64_t(1) << 30) return refuse("2^30 rows or more");
  if (problem.query_heads > 65535) return refuse("more than 65535 query heads");
  if (problem.wants_grad_bias && problem.batch * problem.query_heads > 65535) {
    return refuse("a bias gradient for more than 65535 heads");
  }
  return true;
}

void decide(const Problem& problem, const CudaDevice&, CudaDecision& decision) {
  const int dim = built_dim(problem);
  const BackwardTile tile = sm90::backward_tile(dim);
  decision.variant = Variant::kPrefill;
  decision.kernels[0] = {KernelId::kBackward90, {int(problem.query_type), dim, own_features_of(problem)}};
  decision.kernels[1] = {KernelId::kBackwardPrepare, {}};
  decision.kernel_count = 2;
  if (problem.wants_grad_sink) decision.kernels[decision.kernel_count++] = {KernelId::kBackwardSink, {}};
  if (problem.has_documents) decision.kernels[decision.kernel_count++] = {KernelId::kForward90Documents, {}};
  if (problem.wants_grad_bias) decision.kernels[decision.kernel_count++] = bias_kernel_of(problem);
  decision.query_tile = tile.query_tile;
  decision.key_block = tile.key_block;
  decision.workspace_bytes = layout_of(problem, tile, dim).bytes;
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher,
         void* workspace) {
  require_regular_rows(problem, "query, key, value or grad_output", "cuda.sm90.backward", "strobe::backward");
  const KernelKey& key = decision.kernels[0];
  const int dim = key.values[1];
  const BackwardTile tile = sm90::backward_tile(dim);
  BackwardOptionParams params =
      params_for(problem, buffers, tile, dim, launcher.device(), static_cast<char*>(workspace));
  const auto slots = unsigned(params.common.slots), heads = unsigned(problem.query_heads);
  if (slots > 0 && heads > 0) {
    launcher.launch(decision.kernels[1], {.x = slots, .y = heads}, kPrepareThreads, 0, &params.common);
  } else {
    launcher.clear(params.common.items_taken, sizeof(int));
  }
  for (int n = 2; n < decision.kernel_count; ++n) {
    const KernelKey& more = decision.kernels[n];
    if (more.id == KernelId::kBackwardSink) {
      launcher.launch(more, {.x = heads}, kSinkThreads, 0, &params.common);
    } else if (more.id == KernelId::kBackwardBias) {
      sm80::launch_grad_bias(problem, more, params.common, launcher);
    } else {
      char* const memory = static_cast<char*>(workspace) + layout_of(problem, tile, dim).documents;
      sum_up_documents(problem, more, tile, memory, launcher, params);
    }
  }
  const bool wants_rows = problem.wants_grad_query || problem.wants_grad_key || problem.wants_grad_value;
  if (params.items == 0 || !wants_rows) return;
  const bool follows_prepare = slots > 0 && heads > 0 && decision.kernel_count == 2;
  const int clusters = std::min(params.items, std::max(launcher.device().multiprocessors / tile.cluster, 1));
  launcher.launch(key, {.x = unsigned(clusters * tile.cluster)}, unsigned(tile.threads()),
                  unsigned(sm90::backward_shared(dim, key.values[2]).bytes), &params,
                  follows_prepare ? Start::kEarly : Start::kInOrder);
}

}  // namespace strobe::cuda::sm90_backward
