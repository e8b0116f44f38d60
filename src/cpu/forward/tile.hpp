// A tile of query rows on its way through the keys: who its rows are, what they may see, and their running softmax.
#pragma once

#include "cpu/forward/config.hpp"
#include "cpu/forward/task.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Lanes past the last row repeat that row's facts, so that they never make a block look masked; their query is zero
/// and their result is dropped.
struct Tile {
  int rows;
  int vectors;                           // that its rows fill
  std::int32_t query_index[kTileWidth];  // i
  std::int32_t head[kTileWidth];         // g
  std::int32_t first[kTileWidth];        // keys [first, last) are visible by position
  std::int32_t last[kTileWidth];
  std::int32_t document[kTileWidth];
  float alibi_slope[kTileWidth];  // in units of log2
  float max[kTileWidth];          // running maximum of the scores, in units of log2
  float sum[kTileWidth];          // running sum of exp2(score - max)
  int first_min, first_max, last_min, last_max;
  int vector_last[kTileVectors];  // the largest `last` of each vector
  std::int32_t document_min, document_max;
};

inline int clamp_key(std::int64_t key, std::int64_t key_length) {
  return int(key < 0 ? 0 : key > key_length ? key_length : key);
}

/// The tile of rows [first_row, first_row + rows), with nothing seen yet but the sink.
inline void open_tile(const ForwardTask& task, std::int64_t first_row, int rows, Tile& tile) {
  tile.rows = rows;
  tile.vectors = (rows + kLanes - 1) / kLanes;
  std::int64_t i = first_row / task.group;
  std::int64_t g = first_row - i * task.group;
  for (int lane = 0; lane < kTileWidth; ++lane) {
    const std::int64_t position = i + task.position_shift;
    tile.query_index[lane] = std::int32_t(i);
    tile.head[lane] = std::int32_t(g);
    tile.last[lane] = clamp_key(position + task.right + 1, task.key_length);
    tile.first[lane] = clamp_key(position - task.left, tile.last[lane]);
    if (task.alibi_slopes != nullptr) tile.alibi_slope[lane] = kLog2E * task.alibi_slopes[g * task.alibi_stride];
    if (task.query_documents != nullptr) tile.document[lane] = task.query_documents[i * task.query_document_stride];
    const float sink = task.sink != nullptr ? task.sink[g * task.sink_stride] : kMinusInfinity;
    tile.max[lane] = kLog2E * sink;
    tile.sum[lane] = sink == kMinusInfinity ? 0.0f : 1.0f;
    if (lane + 1 >= rows) continue;
    if (++g == task.group) {
      g = 0;
      ++i;
    }
  }
  tile.first_min = tile.first_max = tile.first[0];
  tile.last_min = tile.last_max = tile.last[0];
  for (int v = 0; v < kTileVectors; ++v) tile.vector_last[v] = tile.last[v * kLanes + kLanes - 1];
  tile.document_min = tile.document_max = tile.document[0];
  for (int lane = 1; lane < kTileWidth; ++lane) {
    tile.first_min = tile.first[lane] < tile.first_min ? tile.first[lane] : tile.first_min;
    tile.first_max = tile.first[lane] > tile.first_max ? tile.first[lane] : tile.first_max;
    tile.last_min = tile.last[lane] < tile.last_min ? tile.last[lane] : tile.last_min;
    tile.last_max = tile.last[lane] > tile.last_max ? tile.last[lane] : tile.last_max;
    if (task.query_documents == nullptr) continue;
    tile.document_min = tile.document[lane] < tile.document_min ? tile.document[lane] : tile.document_min;
    tile.document_max = tile.document[lane] > tile.document_max ? tile.document[lane] : tile.document_max;
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
