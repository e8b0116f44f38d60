// The constants of one compiled Hopper backward kernel, where things lie in its shared memory, and what its producer
// tells the others of a visit.
#pragma once

#include "cuda/sm80/backward/visits.cuh"
#include "cuda/sm90/backward/params.hpp"
#include "cuda/sm90/backward/tiles.hpp"
#include "cuda/sm90/forward/products.cuh"
#include "cuda/sm90/forward/ring.cuh"

namespace strobe::cuda::sm90 {

/// What the producer tells of a query tile, together with its queries.
struct BackwardVisit {
  char* grad_query;     // the tile's first row of dQ
  int first_row, rows;  // of the tile; rows in use from there on
  int place;            // of the tile among all heads' tiles
  bool edge;            // something of the tile is hidden by position from some key of the block
  bool first, last;     // to add to dQ
  bool more;            // another tile follows
};

/// The same where there are options.
struct BackwardOptionVisit : BackwardVisit {
  int head;
  int turn;     // at dQ: how far the tile's counter must be
  float slope;  // ALiBi's
  bool whole;   // data hide nothing of the tile
};

template <int kFeatures>
struct BackwardTypes {
  using Params = BackwardOptionParams;
  using Visit = BackwardOptionVisit;
};
template <>
struct BackwardTypes<0> {
  using Params = BackwardParams;
  using Visit = BackwardVisit;
};

template <int kType, int kDim_, int kFeatures_>
struct BackwardConfig {
  using Element = typename ElementOf<kType>::Type;
  using Params = typename BackwardTypes<kFeatures_>::Params;
  using Visit = typename BackwardTypes<kFeatures_>::Visit;
  static constexpr int kDim = kDim_, kFeatures = kFeatures_, kCommonFeatures = kFeatures & kAllFeatures;
  static constexpr bool kHidesByData = (kFeatures & kHidingFeatures) != 0;
  /// Which tiles a block visits, and its turns there, are looked up by the producer.
  static constexpr bool kSurveys = surveys_visits(kFeatures);
  static constexpr int kTurnThreads = turn_threads(kDim_, kFeatures);
  static constexpr bool kHasPrefix = (kFeatures & kBackwardPrefix) != 0;
  static constexpr bool kSoftcaps = (kFeatures & kSoftcap) != 0, kDrops = (kFeatures & kDropout) != 0;
  /// Of the bias or the mask, where each warp brings its own keys' to shared memory.
  static constexpr int kStagedRowBytes = staged_row_bytes(kDim_, kFeatures);
  /// Whether what dS is made of is not what dV is made of: P times softcap's derivative, or P before dropout.
  static constexpr bool kSplitsWeights = kSoftcaps || kDrops;
  static constexpr BackwardTile kTile = backward_tile(kDim);
  static constexpr BackwardShared kAt = backward_shared(kDim, kFeatures);
  static constexpr int kConsumers = kTile.consumers, kThreads = kTile.threads();
  static constexpr int kStages = kTile.stages, kGradOutputStages = kTile.grad_output_stages;
  static_assert(kStages == 2);
  static constexpr int kItems = 2;  // the one in work and the next
  static constexpr int kConsumerThreads = kConsumers * kWarpgroup;
  static constexpr int kQueryTile = kTile.query_tile, kKeyBlock = kTile.key_block, kKeyStages = kTile.key_stages;
  /// Thread blocks that share a block of keys, and the keys of each.
  static constexpr int kCluster = kTile.cluster, kOwnKeys = kTile.own_keys();
  static constexpr int kPanels = kDim / kPanel, kOwnPanels = kPanels / kCluster;
  static constexpr int kKeyBytes = kOwnKeys * kDim * 2, kQueryBytes = kQueryTile * kDim * 2;
  static constexpr int kKeyPanelBytes = kOwnKeys * kPanelRowBytes, kQueryPanelBytes = kQueryTile * kPanelRowBytes;
  static constexpr int kGradScoreBytes = kQueryTile * kOwnKeys * 2, kFactBytes = backward_fact_floats(kQueryTile) * 4;
  static constexpr bool kSharesKeys = shares_keys(kDim), kStagesGradQuery = stages_grad_query(kDim);
  static constexpr bool kInterleaves = interleaves_weights(kDim, kFeatures);
  /// LSE and delta are read while the tile's S^T is made, where registers have room.
  static constexpr bool kReadsAhead = kSharesKeys && kFeatures == 0;
  static constexpr bool kDelaysGradQuery = delays_grad_query(kDim), kFreesKeysEarly = frees_keys_early(kDim);
  static_assert(kOwnKeys == kWarpgroupRows * (kSharesKeys ? 1 : kConsumers) && kSharesKeys == (kCluster == 2));
  static_assert(!kFreesKeysEarly || kKeyBytes <= (kSharesKeys ? 4 : 2) * kGradScoreBytes);

  // S^T and dP^T of a warpgroup: rows are its 64 keys, columns are queries.
  static constexpr int kScoreQueries = kSharesKeys ? kQueryTile / kConsumers : kQueryTile;
  static constexpr int kScoreTiles = kScoreQueries / 8, kScoreSteps = kScoreQueries / 16, kSteps = kQueryTile / 16;
  using Scores = float[kScoreTiles][4];
  using Factor = u32[kScoreSteps][4];  // P^T or dS^T in 16 bits
  // dV or dK of a warpgroup.
  static constexpr int kSumColumns = kSharesKeys ? kDim / kConsumers : kDim;
  static constexpr int kRowTiles = 1, kWarpKeys = 16, kSumTiles = kSumColumns / 8;
  using Sums = float[kRowTiles][kSumTiles][4];
  // dQ: each warpgroup makes 64 rows, those of its number where there are more, or else as many columns.
  static constexpr int kGradColumns = kQueryTile * kDim / (kConsumers * kCluster * kWarpgroupRows);
  static constexpr int kGradTiles = kGradColumns / 8;
  using GradQuery = float[kGradTiles][4];
  static_assert(sizeof(Visit) <= backward_visit_bytes(kFeatures));
};

/// A configuration to which data hide nothing: visits and turns by position alone.
template <class C>
struct ByPosition {
  static constexpr int kFeatures = 0, kQueryTile = C::kQueryTile, kKeyBlock = C::kKeyBlock;
};

/// A block of keys of one KV head of one sequence.
struct BackwardItem {
  Sequence s;
  int block, kv_head;
  int first_key;        // of this thread block
  int last_key;         // stored rows end there, or at the thread block's last key
  int lowest, highest;  // key - query, as in sm80::Sight
  bool there;           // false: no more items
  bool visited;         // by a query tile; otherwise keys have no gradient
};
static_assert(sizeof(BackwardItem) <= kBackwardItemBytes);

template <class C>
struct BackwardMemory {
  u32 base;
  int rank;  // of the thread block in its cluster
  u32 away;  // from a place in shared memory to the same one of the other thread block

  STROBE_DEVICE u32 keys(int stage) const { return base + C::kAt.keys + stage * C::kKeyBytes; }
  STROBE_DEVICE u32 values(int stage) const { return base + C::kAt.values + stage * C::kKeyBytes; }
  STROBE_DEVICE u32 other_keys(int stage) const { return base + C::kAt.other_keys + stage * (C::kKeyBytes / 2); }
  STROBE_DEVICE u32 queries(int stage) const { return base + C::kAt.queries + stage * C::kQueryBytes; }
  STROBE_DEVICE u32 grad_outputs(int stage) const { return base + C::kAt.grad_outputs + stage * C::kQueryBytes; }
  STROBE_DEVICE u32 grad_scores(int parity) const { return base + C::kAt.grad_scores + parity * C::kGradScoreBytes; }
  STROBE_DEVICE u32 weights(int parity) const { return base + C::kAt.weights + parity * C::kGradScoreBytes; }
  STROBE_DEVICE u32 other_grad_scores(int parity) const {
    return base + C::kAt.other_grad_scores + parity * C::kGradScoreBytes;
  }
  STROBE_DEVICE u32 grad_query() const { return base + C::kAt.grad_query; }
  /// Where dV and dK pass through, behind the last tile: what keys and values took, or dS^T, and P^T where it is
  /// stored.
  STROBE_DEVICE u32 written_values(int stage) const { return C::kFreesKeysEarly ? grad_scores(0) : values(stage); }
  STROBE_DEVICE u32 written_keys(int stage) const { return C::kFreesKeysEarly ? grad_scores(0) : keys(stage); }
  /// Of one of the consumers' warps.
  STROBE_DEVICE u32 staged(int warp) const {
    return base + C::kAt.staged + warp * (C::kScoreQueries * C::kStagedRowBytes);
  }
  STROBE_DEVICE u32 lse(int stage) const { return base + C::kAt.facts + stage * C::kAt.fact_bytes; }
  STROBE_DEVICE u32 delta(int stage) const { return lse(stage) + C::kQueryTile * 4; }

  // Barriers: `full` ends a phase when a tile is there, `empty` when nobody reads it any more.
  STROBE_DEVICE u32 barrier(int n) const { return base + C::kAt.barriers + 8 * n; }
  STROBE_DEVICE u32 landed() const { return barrier(0); }  // a tile of which rows must be cleared first
  STROBE_DEVICE u32 item_full(int stage) const { return barrier(1 + stage); }
  STROBE_DEVICE u32 item_empty(int stage) const { return barrier(3 + stage); }
  STROBE_DEVICE u32 keys_full(int stage) const { return barrier(5 + stage); }
  STROBE_DEVICE u32 values_full(int stage) const { return barrier(7 + stage); }
  STROBE_DEVICE u32 keys_empty(int stage) const { return barrier(9 + stage); }  // of values too
  STROBE_DEVICE u32 grad_output_full(int stage) const { return barrier(11 + stage); }
  STROBE_DEVICE u32 grad_output_empty(int stage) const { return barrier(13 + stage); }
  STROBE_DEVICE u32 turn_come(int stage) const { return barrier(15 + stage); }  // the block may add to dQ
  STROBE_DEVICE u32 added(int stage) const { return barrier(17 + stage); }      // consumers have added dQ, or staged it
  STROBE_DEVICE u32 stage_empty() const { return barrier(25); }                 // of dQ
  STROBE_DEVICE u32 query_full(int stage) const { return barrier(19 + stage); }
  STROBE_DEVICE u32 query_empty(int stage) const { return barrier(21 + stage); }
  // dS^T of all keys is there; where keys are shared, that of the other thread block's.
  STROBE_DEVICE u32 graded(int stage) const { return barrier(23 + stage); }
  STROBE_DEVICE u32 number_full(int stage) const { return barrier(26 + stage); }
  STROBE_DEVICE u32 other_graded(int stage) const { return barrier(28 + stage); }  // the other has used dS^T of ours
  STROBE_DEVICE u32 number(int stage) const { return base + C::kAt.numbers + 4 * stage; }
};

}  // namespace strobe::cuda::sm90
