// The constants of one compiled forward kernel, and where things lie in its shared memory.
#pragma once

#include "cuda/device/survey.cuh"
#include "cuda/sm80/forward/params.hpp"
#include "cuda/sm80/forward/tiles.hpp"

namespace strobe::cuda::sm80 {

template <int kType, int kHeadDim_, int kValueDim_, int kFeatures_, int kArchitecture>
struct ForwardConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr int kHeadDim = kHeadDim_, kValueDim = kValueDim_, kFeatures = kFeatures_;
  static constexpr ForwardTile kTile = forward_tile(Element::kBytes, kHeadDim, kValueDim, kArchitecture);
  static constexpr int kThreads = kTile.threads(), kBlocks = kTile.blocks;
  // Kernels with all features go without sharing: their parts are too small.
  static constexpr int kSharing = kFeatures == kAllFeatures ? 1 : kTile.sharing,
                       kRowTiles = kTile.row_tiles / kTile.sharing * kSharing;
  static constexpr int kWarpRows = 16 * kRowTiles, kQueryTile = kTile.query_tile(), kKeyBlock = kTile.key_block;
  // Kernels with all features take few keys at a time: their text grows with them, and the time to compile it.
  static constexpr int kParts = kFeatures == kAllFeatures ? kKeyBlock / 16 : 1, kPartKeys = kKeyBlock / kParts;
  static constexpr int kOwnKeys = kPartKeys / kSharing, kOwnSteps = kOwnKeys / Element::kStep;
  static constexpr int kKeyTiles = kOwnKeys / 8, kValueTiles = kValueDim / kSharing / 8;  // accumulators of 8 columns
  static constexpr bool kEdits = (kFeatures & kScoreFeatures) != 0;
  static constexpr bool kStagesBias = stages_bias(Element::kStoredBytes, kTile, kFeatures);

  using QueryTile = Tile<Element, kQueryTile, kHeadDim>;
  using OutputTile = Tile<Element, kQueryTile, kValueDim>;  // takes the queries' place at the end
  using KeyTile = Tile<Element, kKeyBlock, kHeadDim>;
  using ValueTile = Tile<Element, kKeyBlock, kValueDim>;
  using BiasTile = Tile<Element, kWarpRows, kKeyBlock>;  // a warp's own

  static constexpr int kKeysAt = larger(QueryTile::kBytes, OutputTile::kBytes);
  static constexpr int kValuesAt = kKeysAt + KeyTile::kBytes;
  static constexpr int kExchangeAt = kValuesAt + ValueTile::kBytes, kExchangeBytes = exchange_bytes(kTile);
  static constexpr int kWeightBytes = kWarpRows * kOwnKeys * Element::kBytes;  // the exchange starts with them
  static constexpr int kBiasAt = kExchangeAt + kTile.warps * kExchangeBytes;
  static constexpr int kSharedBytes = kBiasAt + (kStagesBias ? kTile.warps * BiasTile::kBytes : 0);
  static_assert(kSharedBytes ==
                forward_shared_bytes(Element::kStoredBytes, kHeadDim, kValueDim, kFeatures, kArchitecture));

  static_assert(kSharing == 1 || kValueTiles % ValueTile::kTurn == 0);  // LaneChunks stay what they are

  using Scores = float[kRowTiles][kKeyTiles][4];
  using Weights = u32[kRowTiles][kOwnSteps][4];  // P as left factors
  using Outputs = float[kRowTiles][kValueTiles][4];

  /// The warp's first row in the tile; which share of its rows' keys and dimensions it has.
  static STROBE_DEVICE int warp_row() { return warp_index() / kSharing * kWarpRows; }
  static STROBE_DEVICE int side() { return warp_index() % kSharing; }
};

}  // namespace strobe::cuda::sm80
