// The host side of the forward kernel: whom it serves, with which variant and tile, and the launch.
#include <algorithm>
#include <bit>

#include "cuda/families.hpp"
#include "cuda/sm80/forward/params.hpp"
#include "cuda/sm80/forward/tiles.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm80_forward {
namespace {

using sm80::BuiltDims;
using sm80::ForwardParams;
using sm80::ForwardTile;

BuiltDims built_dims(const Problem& problem) { return sm80::built_dims(int(problem.head_dim), int(problem.value_dim)); }

int element_bytes_of(const Problem& problem) { return sm80::tile_bytes(int(size_of(problem.query_type))); }

ForwardTile tile_of(const Problem& problem, const CudaDevice& device) {
  const BuiltDims dims = built_dims(problem);
  return sm80::forward_tile(element_bytes_of(problem), dims.head, dims.value, device.architecture);
}

constexpr int kMostGroups = 65535;  // in a grid's second dimension
int groups_of(int heads, int group_bits) { return ((heads - 1) >> group_bits) + 1; }

/// Heads (as the power of two that they are) whose keys leave half of the second-level cache to queries and outputs.
/// Under a causal mask few tiles see all keys, and the more heads, the fewer of the long tiles are left for the end.
int group_bits_of(const Problem& problem, const ForwardParams& params, const CudaDevice& device) {
  const std::int64_t bytes = params.attention.key_length * (problem.head_dim + problem.value_dim) *
                             element_bytes_of(problem) / problem.group();
  const std::int64_t room = problem.causal ? device.l2_bytes : device.l2_bytes / 2;
  const std::int64_t fitting = std::clamp<std::int64_t>(room / std::max<std::int64_t>(bytes, 1), 1, params.heads);
  int bits = int(std::bit_width(std::uint64_t(fitting))) - 1;
  while (groups_of(params.heads, bits) > kMostGroups) ++bits;
  return bits;
}

sm80::Divisor divisor_of(int n) {
  const int bits = int(std::bit_width(unsigned(n) - 1u));
  return {.factor = unsigned(((std::uint64_t(1) << (31 + bits)) + unsigned(n) - 1) / unsigned(n)), .shift = 31 + bits};
}

}  // namespace

bool serves(const Problem& problem, const CudaDevice& device, std::string* why_not) {
  const auto refuse = [&](const char* reason) {
    if (why_not != nullptr) *why_not = reason;
    return false;
  };
  if (problem.head_dim > 256 || problem.value_dim > 256) return refuse("head dimensions above 256 are not built");
  if (problem.key_type != problem.query_type) return refuse("keys must be of the queries' type");
  if (query_tiles_of(problem, tile_of(problem, device).query_tile()) * tiled_heads_of(problem) >= std::int64_t(1)
                                                                                                      << 31) {
    return refuse("more than 2^31 tiles of queries");
  }
  return true;
}

void decide(const Problem& problem, const CudaDevice& device, CudaDecision& decision) {
  const BuiltDims dims = built_dims(problem);
  const ForwardTile tile = tile_of(problem, device);
  decision.variant = Variant::kPrefill;
  decision.kernels[0] = {KernelId::kForward, {int(problem.query_type), dims.head, dims.value, features_of(problem)}};
  decision.kernel_count = 1;
  decision.query_tile = tile.query_tile();
  decision.key_block = tile.key_block;
}

void run(const Problem& problem, const Buffers& buffers, const CudaDecision& decision, Launcher& launcher, void*) {
  const CudaDevice& device = launcher.device();
  const KernelKey& key = decision.kernels[0];
  const ForwardTile tile = tile_of(problem, device);
  ForwardParams params{};
  describe(problem, buffers, params.attention);
  params.tiles = int(query_tiles_of(problem, tile.query_tile()));
  params.heads = int(tiled_heads_of(problem));
  if (params.tiles == 0 || params.heads == 0) return;
  params.group_bits = group_bits_of(problem, params, device);
  params.by_query_heads = divisor_of(int(problem.query_heads));
  params.by_group = divisor_of(int(problem.group()));
  const int shared = sm80::forward_shared_bytes(int(size_of(problem.query_type)), key.values[1], key.values[2],
                                                key.values[3], device.architecture);
  launcher.launch(
      key,
      {.x = unsigned(params.tiles) << params.group_bits, .y = unsigned(groups_of(params.heads, params.group_bits))},
      unsigned(tile.threads()), unsigned(shared), &params);
}

}  // namespace strobe::cuda::sm80_forward
