// The constants of one compiled backward kernel.
#pragma once

#include "cuda/device/scores.cuh"
#include "cuda/sm80/backward/params.hpp"
#include "cuda/sm80/backward/tiles.hpp"

namespace strobe::cuda::sm80 {

template <int kType, int kHeadDim_, int kValueDim_, int kFeatures_, int kArchitecture_>
struct BackwardConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr int kHeadDim = kHeadDim_, kValueDim = kValueDim_, kFeatures = kFeatures_;
  static constexpr int kArchitecture = kArchitecture_;
  static constexpr BackwardTile kTile = backward_tile(kHeadDim, kValueDim, kFeatures, kArchitecture);
  static constexpr BackwardShared kAt = backward_shared(kTile, kHeadDim, kValueDim);
  static constexpr int kThreads = kTile.threads(), kPairs = kTile.pairs, kRowTiles = kTile.row_tiles;
  static constexpr int kStages = kTile.stages, kSharedBytes = kAt.bytes, kFacts = fact_floats(kTile.query_tile);
  static constexpr int kWarpKeys = 16 * kRowTiles, kKeyBlock = kTile.key_block(), kQueryTile = kTile.query_tile;
  static constexpr bool kEdits = (kFeatures & kEditingFeatures) != 0;
  static constexpr bool kHidesByData = (kFeatures & (kDocuments | kMask | kBlockMask)) != 0;
  static constexpr bool kSoftcaps = (kFeatures & kSoftcap) != 0, kDrops = (kFeatures & kDropout) != 0;

  using KeyTile = Tile<kKeyBlock, kHeadDim>;
  using ValueTile = Tile<kKeyBlock, kValueDim>;
  using QueryTile = Tile<kQueryTile, kHeadDim>;
  using GradOutputTile = Tile<kQueryTile, kValueDim>;
  using GradScoreTile = Tile<kKeyBlock, kQueryTile>;

  // S^T and dP^T of a warp: rows are keys, columns are queries. A step is 16 queries; pairs meet after half of them.
  static constexpr int kScoreTiles = kQueryTile / 8, kSteps = kQueryTile / 16, kHalf = kSteps / 2;
  using Scores = float[kRowTiles][kScoreTiles][4];
  using Factor = u32[kRowTiles][4];  // P^T or dS^T of a step, 16-bit elements
  // dV or dK of a warp.
  static constexpr int kSumTiles = larger(kHeadDim, kValueDim) / 8;
  using Sums = float[kRowTiles][kSumTiles][4];
  // A warp's share of dQ, and the part of it that it works on at a time.
  static constexpr int kGradColumns = kTile.grad_columns();
  static constexpr int kGradRows = kQueryTile / kTile.grad_rows, kGradRowTiles = kGradRows / 16;
  static constexpr int kGradDims = kHeadDim / kGradColumns, kGradParts = kTile.grad_parts;
  static constexpr int kPartDims = kGradDims / kGradParts, kGradTiles = kPartDims / 8;
  static constexpr int kWarpFloats = kGradRows * kGradDims, kPartFloats = kGradRows * kPartDims;
  using GradQuery = float[kGradRowTiles][kGradTiles][4];
  static_assert(kGradRows % 16 == 0 && kPartDims % 16 == 0 && kPartDims * kGradParts * kGradColumns == kHeadDim);
};

}  // namespace strobe::cuda::sm80
