// The host side of the Hopper forward kernel: whom it serves, with which variant and tile, and the launch.
#include "cuda/sm90/forward/launch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/families.hpp"
#include "cuda/sm80/merge/launch.hpp"
#include "cuda/sm90/forward/document_blocks.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm90_forward {
namespace {

using sm90::DocumentBlocks;
using sm90::ForwardParams;
using sm90::ForwardTile;

/// Below this, half of what the tensor unit does would be for padding, and the portable kernel has tiles of its own.
constexpr std::int64_t kLeastDim = 33;
constexpr std::size_t kWorkspaceBytes = 256;  // for the counter of tiles

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
int built_dim(const Problem& problem) { return sm90::built_dim(int(std::max(problem.head_dim, problem.value_dim))); }

/// Whether sharing tiles could make them fewer by a quarter, as it does where the queries of a sequence leave a quarter
/// of a tile empty: the kernel is one that can share then, whether it pays for the problem or not. Of packed sequences
/// only the sum of lengths is known.
bool has_few_queries(const Problem& problem) {
  const int tile = sm90::forward_tile(built_dim(problem)).query_tile();
  return !problem.packed_queries && problem.query_length <= tile * 3 / 4;
}

/// features_of, and whether there is a prefix, or pages, with another option all of them; and whether heads of a group
/// may share tiles.
int own_features_of(const Problem& problem) {
  int features = features_of(problem);
  const auto add = [&](bool given, int feature) {
    if (given) features = features == 0 ? feature : sm90::kAllForwardFeatures;
  };
  if (features == kAllFeatures) features = sm90::kAllForwardFeatures;
  add(problem.prefix_length > 0 || problem.has_prefix_lengths, sm90::kPrefixKeys);
  add(problem.page_size > 0, sm90::kPages);
  const bool groups = problem.group() > 1 && problem.group() <= sm90::kWarpgroupRows;
  const bool may_share = groups && has_few_queries(problem) && sm90::may_share_tiles(features);
  return may_share ? features | sm90::kSharedTiles : features;
}

sm90::HeadSharing sharing_of(const Problem& problem, std::int64_t heads) {
  const std::int64_t queries = sm90::kWarpgroupRows / heads;
  return {.heads = int(heads),
          .queries = int(queries),
          .tiled_heads = int(problem.query_heads / heads),
          .heads_inverse = unsigned(0x10000 / heads + 1),
          .queries_inverse = std::uint64_t(ceil_div(std::int64_t(1) << 32, queries))};
}
/// Of all sequences, tiles and heads that have tiles of their own.
std::int64_t tiles_of(const Problem& problem, const ForwardTile& tile, const sm90::HeadSharing& sharing) {
  return query_tiles_of(problem, tile.consumers * sharing.queries);
}
std::int64_t tiled_heads_of(const Problem& problem, const sm90::HeadSharing& sharing) {
  return cuda::tiled_heads_of(problem) / sharing.heads;
}

/// Heads of a group share tiles where that makes them fewer by a quarter at least: where queries are few.
/// Where tiles are so few that keys are split, sharing must save products: it makes more splits, whose outputs cost.
sm90::HeadSharing sharing_of(const Problem& problem, const CudaDevice& device, const ForwardTile& tile) {
  const sm90::HeadSharing apart = sharing_of(problem, 1);
  if ((own_features_of(problem) & sm90::kSharedTiles) == 0) return apart;
  const sm90::HeadSharing shared = sharing_of(problem, problem.group());
  const bool few = 2 * tiles_of(problem, tile, apart) * tiled_heads_of(problem, apart) <= device.multiprocessors;
  const int warpgroups = few && !problem.batch_invariant ? 1 : tile.consumers;
  const std::int64_t together = query_tiles_of(problem, warpgroups * shared.queries);
  return 4 * together <= 3 * problem.group() * query_tiles_of(problem, warpgroups * apart.queries) ? shared : apart;
}

// Keys are split where tiles are so few that multiprocessors would have nothing to do. A split has at least so many
// blocks of keys; merging costs as long as a tile takes for about so many.
constexpr std::int64_t kLeastSplitBlocks = 4, kMergeBlocks = 10;
/// Of all splits: the kernel counts them in 32 bits.
constexpr std::int64_t kMostTiles = (std::int64_t(1) << 31) - 1;

/// Whether a split's keys may pass for a sequence of their own: nothing is looked up by a key's place but the key, and
/// no term of the sum comes without a key.
bool may_split(const Problem& problem) {
  if (problem.packed_queries || problem.packed_keys || problem.has_sink) return false;
  const int features = own_features_of(problem) & ~sm90::kSharedTiles;
  return features == 0 || features == kSoftcap || features == kAlibi || features == kNegativeScale ||
         features == sm90::kPages;
}

/// Whether the kernel may split keys unasked: a sequence has the same bits in any batch only if nobody does so, and
/// where a window or a causal mask hides most keys, splits would have nothing to do.
bool splits_unasked(const Problem& problem) {
  const bool sees_most =
      problem.window_left == kUnbounded && (problem.alignment == Alignment::kBottomRight || !problem.causal);
  return sees_most && !problem.batch_invariant;
}

/// Keys of a split, whole blocks; 0: they are not split.
std::int64_t split_keys_of(const Problem& problem, const CudaDevice& device, const ForwardTile& tile) {
  if (problem.splits == 1 || !may_split(problem)) return 0;
  const std::int64_t blocks = ceil_div(problem.key_length, tile.key_block);
  const sm90::HeadSharing sharing = sharing_of(problem, device, tile);
  const std::int64_t tiles = tiles_of(problem, tile, sharing) * tiled_heads_of(problem, sharing);
  std::int64_t splits = std::min<std::int64_t>(problem.splits, blocks);
  if (splits > 0 && tiles > kMostTiles / splits) return 0;
  if (problem.splits == 0) {
    if (!splits_unasked(problem) || tiles == 0) return 0;
    splits = std::min(device.multiprocessors / tiles, blocks / kLeastSplitBlocks);
    if (splits > 1 && blocks - ceil_div(blocks, splits) <= kMergeBlocks) return 0;
  }
  return splits > 1 ? ceil_div(blocks, splits) * tile.key_block : 0;
}

// tanh(z) / z as polynomials in z^2: for |z| up to 1, relative error at most 7e-6; up to 1/2, 2.3e-5. Beyond, they grow
// all the same.
constexpr double kTanhTerms[sm90::kSoftcapTerms] = {0.99999309, -0.332980649, 0.130368082, -0.0448174949,
                                                    0.00903639071};
constexpr double kFewTanhTerms[sm90::kFewSoftcapTerms] = {0.999977436, -0.331691505, 0.11520973};

/// `ratio` times a product is z. `limit` is the largest z for which the polynomial holds; far below -limit, weights are
/// off by less than 2^(-share * height). Returns whether all terms are numbers that float32 has.
template <int kTerms>
bool describe_cap(const double (&tanh_terms)[kTerms], double ratio, double height, double limit, double share,
                  sm90::SoftcapPolynomial<kTerms>& cap) {
  constexpr double kNegligible = 20.0;  // powers of two below the row's largest weight
  double unit = ratio * height;
  bool usable = true;
  for (int n = 0; n < kTerms; ++n, unit *= ratio * ratio) {
    cap.terms[n] = float(tanh_terms[n] * unit);
    usable &= std::isnormal(cap.terms[n]);
  }
  cap.lowest = usable ? float(kNegligible - share * height) : std::numeric_limits<float>::infinity();
  cap.highest = float(std::tanh(limit) * height - std::log2(sm90::kSoftcapWeights));
  return usable;
}

/// A bias of 16 bits whose rows lie in chunks comes by the copy engine, where it is the only option.
void describe_bias(const Problem& problem, int features, ForwardParams& params) {
  const AttentionParams& p = params.attention;
  const ScoresView& bias = p.bias;
  if (!sm90::stages_bias(features) || !bias.in_chunks || bias.type == Element::kFloat32 || p.packed_queries) return;
  const RowsView view{.data = const_cast<char*>(bias.data),
                      .batch_stride = bias.batch_stride,
                      .row_stride = bias.row_stride,
                      .head_stride = bias.head_stride,
                      .type = bias.type,
                      .vector_bytes = 0};
  const auto count = [](long long stride, long long all) { return stride == 0 ? 1 : all; };
  params.bias_rows = bias.row_stride == 0 ? 1 : sm90::kWarpgroupRows;
  params.bias =
      tensor_map_of(view, {p.key_length, count(bias.row_stride, p.query_length), count(bias.head_stride, p.query_heads),
                           count(bias.batch_stride, problem.batch), params.bias_rows});
}

void describe_softcap(const Problem& problem, ForwardParams& params) {
  if (!(problem.softcap > 0.0f)) return;
  const double ratio = double(problem.scale) / problem.softcap, height = problem.softcap * 1.44269504088896340736;
  const bool usable = describe_cap(kTanhTerms, ratio, height, 1.0, 0.75, params.softcap);
  params.softcap_limit = usable ? float(1.0 / ratio) : -1.0f;
  describe_cap(kFewTanhTerms, ratio, height, 0.5, 0.5, params.softcap_in_few);
}

/// Heads are worked on in groups of like sizes. Where all tiles take equally long, heads follow one another, so that
/// keys are read from memory once. Under a causal mask a group has several, whose short tiles even out the long ones:
/// as many as have four tiles for each multiprocessor, but so few that every head keeps eight multiprocessors busy,
/// which share what is read of its keys.
void group_heads(int multiprocessors, ForwardParams& params) {
  int heads = 1;
  if (params.attention.right < params.attention.key_length) {
    heads = std::clamp((4 * multiprocessors + params.tiles - 1) / params.tiles, 1, std::max(multiprocessors / 8, 1));
  }
  params.groups = in_groups(params.heads, heads);
}

}  // namespace

bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const auto refuse = [&](const char* reason) {
    if (why_not != nullptr) *why_not = reason;
    return false;
  };
  if (!device.tensor_maps) return refuse("needs a driver that describes tensors to the GPU (cuTensorMapEncodeTiled)");
  if (problem.key_type != problem.query_type) return refuse("keys must be of the queries' type");
  const std::int64_t dim = std::max(problem.head_dim, problem.value_dim);
  if (dim > 256) return refuse("head dimensions above 256 are not built");
  if (dim < kLeastDim) return refuse("would pad head dimensions up to 32 to 64");
  if (!problem.regular_rows) return refuse("rows must start at multiples of 16 bytes, in the order of memory");
  if (problem.dropout > 0.0f) return refuse("has no dropout");
  if (problem.page_size > 0 && !sm90::fits_pages(int(problem.page_size), sm90::forward_tile(int(dim)).key_block)) {
    return refuse("pages must be multiples of its blocks of keys, or divide them into multiples of 8");
  }
  if (query_tiles_of(problem, sm90::forward_tile(int(dim)).query_tile()) * cuda::tiled_heads_of(problem) > kMostTiles) {
    return refuse("more than 2^31 tiles of queries");
  }
  return true;
}

bool suits_few_rows(const Problem& problem, const CudaDevice& device) {
  if (device.architecture != 90 || size_of(problem.query_type) != 2 || !serves(problem, device, nullptr)) return false;
  const bool shares = problem.group() == 1 || (own_features_of(problem) & sm90::kSharedTiles) != 0;
  return shares && problem.page_size == 0 && may_split(problem) && splits_unasked(problem);
}

void decide(const Problem& problem, const CudaDevice& device, CudaDecision& decision) {
  const int dim = built_dim(problem);
  const ForwardTile tile = sm90::forward_tile(dim);
  decision.variant = Variant::kPrefill;
  decision.kernels[0] = {KernelId::kForward90, {int(problem.query_type), dim, own_features_of(problem)}};
  decision.kernel_count = 1;
  decision.query_tile = tile.query_tile();
  decision.key_block = tile.key_block;
  decision.workspace_bytes = kWorkspaceBytes;
  const std::int64_t split_keys = split_keys_of(problem, device, tile);
  if (split_keys > 0 && split_keys < problem.key_length) {
    decision.split_keys = split_keys;
    decision.max_splits = ceil_div(problem.key_length, split_keys);
    decision.kernels[decision.kernel_count++] = sm80_merge::kernel_for(DataType::kFloat32, decision.max_splits);
    decision.workspace_bytes += sm80_merge::parts_layout_of(problem, decision.max_splits).bytes;
  }
  if (problem.has_documents) {
    decision.kernels[decision.kernel_count++] = {KernelId::kForward90Documents, {}};
    const DocumentBlocks blocks(problem, tile.key_block);
    decision.workspace_bytes += blocks.query_bytes() + blocks.key_bytes();
  }
  decision.workspace_is_counts = decision.kernel_count == 1;
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher,
         void* workspace) {
  require_regular_rows(problem, "query, key, value or output", "cuda.sm90.forward", "strobe::forward");
  const KernelKey& key = decision.kernels[0];
  const int dim = key.values[1];
  const ForwardTile tile = sm90::forward_tile(dim);
  ForwardParams params{};
  AttentionParams& p = params.attention;
  describe(problem, buffers, p);
  params.sharing = sharing_of(problem, launcher.device(), tile);
  params.tiles = int(tiles_of(problem, tile, params.sharing));
  params.heads = int(tiled_heads_of(problem, params.sharing));
  if (params.tiles == 0 || params.heads == 0) return;
  MergeProblem parts{};
  params.splits = int(decision.max_splits);
  if (params.splits > 1) {
    parts = sm80_merge::parts_of(problem, buffers, params.splits, static_cast<char*>(workspace) + kWorkspaceBytes);
    p.output = view_of(parts.parts, problem.value_dim);
    p.lse = view_of(parts.part_lses);
    params.heads *= params.splits;
    params.split_keys = int(decision.split_keys);
  }
  const long long queries = problem.packed_queries ? 1 : p.batch, caches = problem.packed_keys ? 1 : p.cache_rows;
  const auto query_map = [&](const RowsView& view, int dims) {
    const TensorExtents extents{dims,    p.query_length,         p.query_heads,
                                queries, params.sharing.queries, params.sharing.heads};
    return params.sharing.heads > 1 ? heads_first_map_of(view, extents) : tensor_map_of(view, extents);
  };
  params.query = query_map(p.query, p.head_dim);
  const int rows_together = p.page_size > 0 ? p.page_size : p.key_length;
  const int box_rows = p.page_size > 0 ? std::min(p.page_size, tile.key_block) : tile.key_block;
  params.key = tensor_map_of(p.key, {p.head_dim, rows_together, p.kv_heads, caches, box_rows});
  params.value = tensor_map_of(p.value, {p.value_dim, rows_together, p.kv_heads, caches, box_rows});
  if (p.output.type != Element::kFloat32) params.output = query_map(p.output, p.value_dim);
  describe_bias(problem, key.values[2], params);
  describe_softcap(problem, params);
  group_heads(launcher.device().multiprocessors, params);
  params.tiles_taken = static_cast<unsigned long long*>(workspace);
  params.tag = fresh_tag();
  if (problem.has_documents) {
    sm90::sum_up_documents(problem, decision.kernels[1], static_cast<char*>(workspace) + kWorkspaceBytes,
                           tile.key_block, launcher, params);
  }
  const unsigned blocks =
      unsigned(std::min<std::int64_t>(std::int64_t(params.tiles) * params.heads, launcher.device().multiprocessors));
  launcher.launch(key, {.x = blocks}, unsigned(tile.threads()),
                  unsigned(sm90::forward_shared_bytes(dim, key.values[2])), &params);
  if (params.splits > 1) sm80_merge::merge(parts, launcher);
}

}  // namespace strobe::cuda::sm90_forward
