// The tuning table of the Hopper forward kernel. Plain constants, read by the kernel when it is compiled and by the
// host when it plans. What was measured to choose them is in README.md.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm90 {

/// Rows of a warpgroup's matrix products.
constexpr int kWarpgroupRows = 64;

struct ForwardTile {
  int consumers;  // warpgroups of kWarpgroupRows queries each; one more schedules, loads and stores
  int key_block;
  int query_stages;  // kWarpgroupRows queries each: those in work, and as many of the next tile as fit
  int stages;        // blocks of keys, and of values
  int producer_registers, consumer_registers;

  constexpr int query_tile() const { return kWarpgroupRows * consumers; }
  constexpr int threads() const { return 128 * (consumers + 1); }
};

/// Head dimensions that kernels are built for; others are padded to the next. 0 where there is none.
constexpr int built_dim(int dim) { return dim <= 64 ? 64 : dim <= 128 ? 128 : dim <= 256 ? 256 : 0; }

/// Whether a bias alone is asked for: it comes by the copy engine then, to a stage for each consumer, for which others
/// make room.
constexpr bool stages_bias(int features) { return features == kBias; }

constexpr ForwardTile forward_tile(int dim, int features = 0) {
  const bool bias = stages_bias(features);
  if (dim <= 64) {
    return {.consumers = 3,
            .key_block = 128,
            .query_stages = 6,
            .stages = bias ? 3 : 4,
            .producer_registers = 32,
            .consumer_registers = 160};
  }
  return {.consumers = 2,
          .key_block = dim <= 128 ? 128 : 64,
          .query_stages = bias         ? 2
                          : dim <= 128 ? 4
                                       : 3,
          .stages = 2,
          .producer_registers = 40,
          .consumer_registers = 232};
}

/// Whether shared memory has room to stage outputs for the copy engine. If not, threads write them.
constexpr bool stages_output(int dim) { return dim <= 128; }

constexpr int kBarrierBytes = 384, kTaskBytes = 1152;
/// What the 128-byte swizzle wants tiles to start at.
constexpr int kTileAlignment = 1024;

/// Features of this kernel besides those of AttentionParams: keys before a prefix are seen by all; keys lie in pages.
constexpr int kPrefixKeys = 256, kPages = 512;
/// Those of the kernel that has all, and asks for each whether it is given. (None has dropout.)
constexpr int kAllForwardFeatures = kAllFeatures | kPrefixKeys | kPages;
/// With some of these: query heads of a KV head may share tiles (HeadSharing).
constexpr int kSharedTiles = 1024;

/// Whether tiles can be shared beside these features: what they do to a score depends neither on its query nor on its
/// head.
constexpr bool may_share_tiles(int features) {
  return features == 0 || features == kSoftcap || features == kNegativeScale || features == kPages;
}

/// Whether the copy engine can fetch blocks of keys from pages: whole blocks from a page, or whole pages, of which each
/// starts where the swizzle does.
constexpr bool fits_pages(int page_size, int key_block) {
  return page_size % 8 == 0 && (page_size % key_block == 0 || key_block % page_size == 0);
}

/// Features that make a tile look up which blocks of keys to visit. A task has so many words of bits for them, for the
/// tile and for each consumer.
constexpr bool surveys(int features) { return (features & (kDocuments | kBlockMask | kPrefixKeys)) != 0; }
constexpr int kSurveyWords = 16;
constexpr int survey_bytes(int features, int consumers) {
  return surveys(features) ? 4 * 4 * (kSurveyWords * (1 + consumers) + 4) : 0;  // of four tasks
}

/// Threads of a block of the kernel that sums up documents.
constexpr int kDocumentThreads = 128;

constexpr int forward_shared_bytes(int dim, int features) {
  const ForwardTile tile = forward_tile(dim, features);
  const int queries = kWarpgroupRows * dim * 2, keys = tile.key_block * dim * 2;
  const int bias = stages_bias(features) ? tile.consumers * kWarpgroupRows * tile.key_block * 2 : 0;
  return queries * (tile.query_stages + (stages_output(dim) ? tile.consumers : 0)) + 2 * tile.stages * keys + bias +
         kBarrierBytes + kTaskBytes + survey_bytes(features, tile.consumers);
}

}  // namespace strobe::cuda::sm90
