// The constants of one compiled decode kernel. They have the names of ForwardConfig, so that the forward kernel's
// products and softmax serve a warp here as they do there.
#pragma once

#include "cuda/sm80/decode/params.hpp"
#include "cuda/sm80/decode/tiles.hpp"
#include "cuda/sm80/forward/epilogue.cuh"
#include "cuda/sm80/forward/products.cuh"
#include "cuda/sm80/forward/suspects.cuh"

namespace strobe::cuda::sm80 {

template <int kType, int kHeadDim_, int kValueDim_, int kFeatures_, int kArchitecture>
struct DecodeConfig {
  using Element = typename ElementOf<kType>::Type;
  static constexpr int kHeadDim = kHeadDim_, kValueDim = kValueDim_, kFeatures = kFeatures_;
  static constexpr DecodeTile kTile = decode_tile(Element::kBytes, kHeadDim, kValueDim, kArchitecture);
  static constexpr int kThreads = kTile.threads(), kWarps = kTile.warps, kStages = kTile.stages;
  static constexpr int kSharedBytes = decode_shared_bytes(Element::kBytes, kHeadDim, kValueDim, kArchitecture);
  static constexpr int kRowTiles = 1, kWarpRows = 0;  // all warps have the same rows
  static constexpr int kKeyBlock = kDecodeStep, kPartKeys = kDecodeStep;
  static constexpr int kKeyTiles = kKeyBlock / 8, kValueTiles = kValueDim / 8;
  static constexpr bool kEdits = (kFeatures & kEditingFeatures) != 0;

  using QueryTile = Tile<Element, kDecodeRows, kHeadDim>;
  using KeyTile = Tile<Element, kKeyBlock, kHeadDim>;
  using ValueTile = Tile<Element, kKeyBlock, kValueDim>;
  static constexpr int kStageBytes = KeyTile::kBytes + ValueTile::kBytes;

  using Scores = float[kRowTiles][kKeyTiles][4];
  using Outputs = float[kRowTiles][kValueTiles][4];
};

}  // namespace strobe::cuda::sm80
