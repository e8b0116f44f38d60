// The constants of one compiled backward kernel.
#pragma once

#include "cuda/device/survey.cuh"
#include "cuda/sm80/backward/params.hpp"
#include "cuda/sm80/backward/tiles.hpp"

namespace strobe::cuda::sm80 {

template <int kType, int kHeadDim_, int kValueDim_, int kFeatures_, int kArchitecture_>
struct BackwardConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr int kHeadDim = kHeadDim_, kValueDim = kValueDim_, kFeatures = kFeatures_;
  static constexpr int kArchitecture = kArchitecture_;
  static constexpr BackwardTile kTile = backward_tile(Element::kBytes, kHeadDim, kValueDim, kFeatures, kArchitecture);
  static constexpr BackwardShared kAt = backward_shared(kTile, Element::kBytes, kHeadDim, kValueDim, kFeatures);
  static constexpr int kThreads = kTile.threads(), kPairs = kTile.pairs, kRowTiles = kTile.row_tiles;
  static constexpr int kStages = kTile.stages, kSharedBytes = kAt.bytes, kFacts = fact_floats(kTile.query_tile);
  static constexpr int kWarpKeys = 16 * kRowTiles, kKeyBlock = kTile.key_block(), kQueryTile = kTile.query_tile;
  static constexpr bool kEdits = (kFeatures & kScoreFeatures) != 0;
  static constexpr bool kHidesByData = (kFeatures & kHidingFeatures) != 0;
  static constexpr bool kStagesBias = stages_bias(Element::kBytes, kTile, kFeatures);
  static constexpr bool kSoftcaps = (kFeatures & kSoftcap) != 0, kDrops = (kFeatures & kDropout) != 0;

  using KeyTile = Tile<Element, kKeyBlock, kHeadDim>;
  using ValueTile = Tile<Element, kKeyBlock, kValueDim>;
  using QueryTile = Tile<Element, kQueryTile, kHeadDim>;
  using GradOutputTile = Tile<Element, kQueryTile, kValueDim>;
  using GradScoreTile = Tile<Element, kKeyBlock, kQueryTile>;
  using BiasTile = Tile<Element, kQueryTile, larger(kWarpKeys, 32)>;  // a warp's own

  // S^T and dP^T of a warp: rows are keys, columns are queries. Pairs of warps meet after half of the steps.
  static constexpr int kScoreTiles = kQueryTile / 8, kStepTiles = Element::kStep / 8;
  static constexpr int kSteps = kScoreTiles / kStepTiles, kHalf = kSteps / 2;
  using Scores = float[kRowTiles][kScoreTiles][4];
  using Factor = u32[kRowTiles][4];  // P^T or dS^T of a step
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
