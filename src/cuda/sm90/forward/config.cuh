// The constants of one compiled Hopper forward kernel, and where things lie in its shared memory.
#pragma once

#include "cuda/device/hopper.cuh"
#include "cuda/device/scores.cuh"
#include "cuda/sm90/forward/params.hpp"
#include "cuda/sm90/forward/tiles.hpp"

namespace strobe::cuda::sm90 {

constexpr int kWarpgroup = 128;
/// Tiles lie in shared memory as panels of 64 columns, which are 128 bytes, the span of the swizzle.
constexpr int kPanel = 64, kPanelRowBytes = 128;

template <int kType, int kDim_, int kFeatures_>
struct ForwardConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr bool kSharesTiles = (kFeatures_ & kSharedTiles) != 0;
  static constexpr int kDim = kDim_, kFeatures = kFeatures_ & ~kSharedTiles, kCommonFeatures = kFeatures & kAllFeatures;
  static_assert(!kSharesTiles || may_share_tiles(kFeatures));
  static constexpr ForwardTile kTile = forward_tile(kDim, kFeatures);
  static constexpr int kConsumers = kTile.consumers, kThreads = kTile.threads(), kQueryTile = kTile.query_tile(),
                       kKeyBlock = kTile.key_block, kQueryStages = kTile.query_stages, kStages = kTile.stages;
  static constexpr int kPanels = kDim / kPanel;
  static constexpr int kKeyTiles = kKeyBlock / 8, kValueTiles = kDim / 8, kSteps = kKeyBlock / 16;
  static constexpr bool kStagesOutput = stages_output(kDim), kLooksAhead = kConsumers == 2,
                        kTakesTurns = kConsumers == 2;
  static constexpr bool kEdits = (kFeatures & kScoreFeatures) != 0, kSurveys = surveys(kFeatures),
                        kHidesByData = (kFeatures & kHidingFeatures) != 0, kPaged = (kFeatures & kPages) != 0,
                        kStagesBias = stages_bias(kFeatures);

  // By what power of two scores may grow from block to block without looking for the maximum: 16 blocks fit the type.
  static constexpr float kQuickGrowth = Element::kLargeWeights > 0x1p30f ? 2.5f : 0.9f;

  static constexpr int kRowBytes = kWarpgroupRows * kDim * 2, kKeyBytes = kKeyBlock * kDim * 2;  // of one stage
  static constexpr int kOutputAt = kQueryStages * kRowBytes;
  static constexpr int kKeysAt = kOutputAt + (kStagesOutput ? kConsumers * kRowBytes : 0),
                       kValuesAt = kKeysAt + kStages * kKeyBytes;
  static constexpr int kBiasAt = kValuesAt + kStages * kKeyBytes, kBiasBytes = kWarpgroupRows * kKeyBlock * 2;
  static constexpr int kBarriersAt = kBiasAt + (kStagesBias ? kConsumers * kBiasBytes : 0);
  static constexpr int kTasksAt = kBarriersAt + kBarrierBytes, kTasks = 4;
  static constexpr int kAllTaskBytes = kTaskBytes + survey_bytes(kFeatures, kConsumers);
  static_assert(kTasksAt + kAllTaskBytes == forward_shared_bytes(kDim, kFeatures));

  using Scores = float[kKeyTiles][4];
  using Weights = u32[kSteps][4];
  using Outputs = float[kPanels][kPanel / 8][4];
};

/// Shared memory of one kernel. Behind the barriers lie tasks: the one in work and the next ones.
template <class C>
struct SharedMemory {
  u32 base;

  STROBE_DEVICE u32 query(int stage) const { return base + stage * C::kRowBytes; }
  STROBE_DEVICE u32 output(int consumer) const { return base + C::kOutputAt + consumer * C::kRowBytes; }
  STROBE_DEVICE u32 keys(int stage) const { return base + C::kKeysAt + stage * C::kKeyBytes; }
  STROBE_DEVICE u32 values(int stage) const { return base + C::kValuesAt + stage * C::kKeyBytes; }

  STROBE_DEVICE u32 bias(int consumer) const { return base + C::kBiasAt + consumer * C::kBiasBytes; }

  // Barriers: `full` ends a phase when a tile is there, `empty` when nobody reads it any more.
  STROBE_DEVICE u32 barrier(int n) const { return base + C::kBarriersAt + 8 * n; }
  STROBE_DEVICE u32 task_full(int stage) const { return barrier(stage); }
  STROBE_DEVICE u32 task_empty(int stage) const { return barrier(C::kTasks + stage); }
  STROBE_DEVICE u32 query_full(int stage) const { return barrier(2 * C::kTasks + stage); }
  STROBE_DEVICE u32 query_empty(int stage) const { return barrier(2 * C::kTasks + C::kQueryStages + stage); }
  STROBE_DEVICE u32 keys_full(int stage) const { return barrier(kFirstKeyBarrier + stage); }
  STROBE_DEVICE u32 keys_empty(int stage) const { return barrier(kFirstKeyBarrier + C::kStages + stage); }
  STROBE_DEVICE u32 values_full(int stage) const { return barrier(kFirstKeyBarrier + 2 * C::kStages + stage); }
  STROBE_DEVICE u32 values_empty(int stage) const { return barrier(kFirstKeyBarrier + 3 * C::kStages + stage); }

  STROBE_DEVICE u32 output_full(int consumer) const { return barrier(kFirstOutputBarrier + consumer); }
  STROBE_DEVICE u32 output_empty(int consumer) const { return barrier(kFirstOutputBarrier + C::kConsumers + consumer); }

  STROBE_DEVICE u32 task_wanted() const { return barrier(kFirstOutputBarrier + 2 * C::kConsumers); }

  STROBE_DEVICE u32 bias_full(int consumer) const { return barrier(kFirstBiasBarrier + consumer); }
  STROBE_DEVICE u32 bias_empty(int consumer) const { return barrier(kFirstBiasBarrier + C::kConsumers + consumer); }

  static constexpr int kFirstKeyBarrier = 2 * (C::kTasks + C::kQueryStages),
                       kFirstOutputBarrier = kFirstKeyBarrier + 4 * C::kStages,
                       kFirstBiasBarrier = kFirstOutputBarrier + 2 * C::kConsumers + 1;
  static_assert(8 * (kFirstBiasBarrier + (C::kStagesBias ? 2 * C::kConsumers : 0)) <= kBarrierBytes);
};

}  // namespace strobe::cuda::sm90
