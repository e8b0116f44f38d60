// The gradient of the bias (bias.cuh), for the backward families that launch it behind their own kernels.
#pragma once

#include "cuda/sm80/backward/params.hpp"
#include "cuda/sm80/backward/tiles.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm80 {

/// Where the gradient goes, and what of the scores each of its elements sums up.
inline void describe_grad_bias(const Problem& problem, const Buffers& buffers, BackwardParams& params) {
  const bool(&broadcasts)[4] = problem.bias_broadcasts;
  params.grad_bias = view_of(buffers.grad_bias);
  params.bias_batches = broadcasts[0] ? 1 : int(problem.batch);
  params.bias_heads = broadcasts[1] ? 1 : int(problem.query_heads);
  params.bias_rows = broadcasts[2] ? 1 : int(problem.query_length);
  params.bias_keys = broadcasts[3] ? 1 : int(problem.key_length);
}

/// `key` is KernelId::kBackwardBias with {type, head_dim, value_dim, features}; facts of rows are there already.
inline void launch_grad_bias(const Problem& problem, const KernelKey& key, const BackwardParams& params,
                             Launcher& launcher) {
  const int bytes = int(size_of(problem.query_type)), head_dim = key.values[1], value_dim = key.values[2];
  const BiasTile tile = bias_tile(bytes, head_dim, value_dim, launcher.device().architecture);
  const auto pieces = [](int count, int piece) { return unsigned((count + piece - 1) / piece); };
  const Grid grid{.x = pieces(params.bias_keys, tile.keys),
                  .y = pieces(params.bias_rows, tile.rows()),
                  .z = unsigned(params.bias_batches) * unsigned(params.bias_heads)};
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  launcher.launch(key, grid, unsigned(tile.threads()), unsigned(bias_shared_bytes(tile, bytes, head_dim, value_dim)),
                  &params);
}

}  // namespace strobe::cuda::sm80
