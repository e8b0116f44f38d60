// The tuning table of the Hopper backward kernel. Plain constants, read by the kernel when it is compiled and by the
// host when it plans. README.md has the arithmetic of registers and shared memory behind them.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm90 {

struct BackwardTile {
  int query_tile, key_block;
  int cluster;             // thread blocks that share a block of keys, each with keys of its own
  int stages;              // query tiles in shared memory
  int grad_output_stages;  // and the gradients of their outputs
  int key_stages;          // blocks of keys and values in shared memory
  int consumers;           // warpgroups; one more loads
  // Of a thread; together no more than the block starts with, or setmaxnreg waits for ever.
  int producer_registers, consumer_registers;

  constexpr int threads() const { return 128 * (consumers + 1); }
  constexpr int own_keys() const { return key_block / cluster; }
};

/// Dimensions of heads and values that kernels are built for; others are padded to the next. 0 where there is none.
constexpr int built_backward_dim(int dim) { return dim <= 64 ? 64 : dim <= 128 ? 128 : dim <= 256 ? 256 : 0; }

/// Features of which producers look up the visits of a block, and its turns at dQ.
constexpr bool surveys_visits(int features) { return (features & (kDocuments | kBlockMask)) != 0; }

/// Threads that pass turns at dQ on, one tile each in turn: while one waits for its addition to arrive, the other has
/// the next tile's added. (Faster at d128, no faster at d64.)
constexpr int turn_threads(int dim, int features) {
  return dim > 64 && dim <= 128 && !surveys_visits(features) ? 2 : 1;
}

constexpr BackwardTile backward_tile(int dim) {
  return {.query_tile = dim <= 64 ? 128 : 64,
          .key_block = 128,
          .cluster = dim <= 128 ? 1 : 2,
          .stages = 2,
          .grad_output_stages = dim <= 128 ? 2 : 1,
          .key_stages = 1,
          .consumers = 2,
          .producer_registers = dim > 64 && dim <= 128 ? 40 : 24,
          .consumer_registers = dim > 64 && dim <= 128 ? 232 : 240};
}

static_assert(24 + 2 * 240 <= 3 * 168 && 40 + 2 * 232 <= 3 * 168);

/// Warpgroups have keys of their own, 64 each, where registers hold as many rows of dK and dV. Otherwise they share 64
/// keys: each makes scores for half of the queries, and half of the columns of all gradients. Two thread blocks, a
/// cluster, then share a block of keys: they copy dS^T to one another, and each makes dQ of all keys, but half of the
/// columns.
constexpr bool shares_keys(int dim) { return dim > 128; }

/// Whether a tile's dQ is made beside the next tile's dV, so that warpgroups seldom wait for one another, and dS^T
/// stays in registers as the left factor of dK. (Faster at d64, slower at d128: README.md.)
constexpr bool delays_grad_query(int dim) { return dim <= 64; }

/// Whether the plain kernel's exponentials stand between the steps of dP^T, of which a warpgroup can start only a few
/// ahead of the tensor unit. (Faster at d64 and d256, no faster at d128.)
constexpr bool interleaves_weights(int dim, int features) { return features == 0 && (dim <= 64 || dim > 128); }

/// Whether the copy engine adds to dQ, from shared memory, or the consumers themselves, where that has no room.
constexpr bool stages_grad_query(int dim) { return !shares_keys(dim); }

/// Whether dK and dV go to memory by way of where dS^T lay, so that the next keys and values may come at once;
/// otherwise by way of where keys and values lay. (Not measured at d128.)
constexpr bool frees_keys_early(int dim) { return dim <= 64 || dim > 128; }

/// A feature of this kernel besides those of AttentionParams: keys before a prefix are seen by all.
constexpr int kBackwardPrefix = 256;
/// Those of the kernel that has all, and asks for each whether it is given.
constexpr int kAllBackwardFeatures = kAllFeatures | kBackwardPrefix;

/// What is known of a query tile's rows, as floats: as sm80/backward/prepare.cuh writes it.
constexpr int backward_fact_floats(int query_tile) { return 2 * query_tile + 4; }

/// Where things lie in a block's shared memory: bytes from its start, which is a multiple of kBackwardAlignment.
struct BackwardShared {
  int keys, values;           // [key_stages][panels][own_keys][64]
  int other_keys;             // [key_stages][panels / 2][own_keys][64]: where keys are shared, the other thread block's
  int queries, grad_outputs;  // [stages], [grad_output_stages], [panels][query_tile][64]
  int grad_scores;            // [2][query_tile / 64][own_keys][64]: dS^T
  int weights;                // the same of P^T, where keys are shared
  int other_grad_scores;      // the same of the other thread block's dS^T
  int grad_query;             // dQ of a tile in float32, in the order of registers, if it is staged
  int facts;                  // [stages][fact_bytes]
  int fact_bytes;
  int staged;    // [warps of consumers][queries of theirs][staged_row_bytes]: bias or mask
  int visits;    // [kBackwardVisits][backward_visit_bytes]
  int items;     // [2][kBackwardItemBytes]
  int barriers;  // [kBackwardBarriers], 8 bytes each
  int numbers;   // [2]: of items, as the first thread block of a cluster tells the other, 4 bytes each
  int bytes;     // with room to align the start, if there is any
};

constexpr int kBackwardAlignment = 1024;  // the 128-byte swizzle wants it
constexpr int kBackwardItemBytes = 96, kBackwardBarriers = 30;
constexpr int backward_visit_bytes(int features) { return features == 0 ? 32 : 48; }
/// Consumers look at a visit until the next one is nearly done, and that after it may be told of before.
constexpr int kBackwardVisits = 4;

/// A row of 16 keys of the bias, of 16-bit elements, or of the boolean mask, where it is the only option and shared
/// memory has room for what a warp wants of a tile.
constexpr int staged_row_bytes(int dim, int features) {
  if (dim > 128) return 0;
  return features == kBias ? 32 : features == kMask ? 16 : 0;
}

/// Of a thread block.
constexpr int kMostShared = 232448;

constexpr BackwardShared backward_shared(int dim, int features) {
  const BackwardTile tile = backward_tile(dim);
  BackwardShared at{};
  at.fact_bytes = (backward_fact_floats(tile.query_tile) * 4 + 31) / 32 * 32;
  const int key_bytes = tile.key_stages * tile.own_keys() * dim * 2;
  const int score_bytes = 2 * tile.query_tile * tile.own_keys() * 2;
  at.values = at.keys + key_bytes;
  at.other_keys = at.values + key_bytes;
  at.queries = at.other_keys + (shares_keys(dim) ? key_bytes / 2 : 0);
  at.grad_outputs = at.queries + tile.stages * tile.query_tile * dim * 2;
  at.grad_scores = at.grad_outputs + tile.grad_output_stages * tile.query_tile * dim * 2;
  at.weights = at.grad_scores + score_bytes;
  at.other_grad_scores = at.weights + (shares_keys(dim) ? score_bytes : 0);
  at.grad_query = at.other_grad_scores + (shares_keys(dim) ? score_bytes : 0);
  at.facts = at.grad_query + (stages_grad_query(dim) ? tile.query_tile * dim * 4 : 0);
  at.staged = at.facts + tile.stages * at.fact_bytes;
  at.visits = at.staged + 4 * tile.consumers * tile.query_tile * staged_row_bytes(dim, features);
  at.items = at.visits + kBackwardVisits * backward_visit_bytes(features);
  at.barriers = at.items + 2 * kBackwardItemBytes;
  at.numbers = at.barriers + kBackwardBarriers * 8;
  at.bytes = at.numbers + 8;
  if (at.bytes + kBackwardAlignment <= kMostShared) at.bytes += kBackwardAlignment;
  return at;
}

}  // namespace strobe::cuda::sm90
