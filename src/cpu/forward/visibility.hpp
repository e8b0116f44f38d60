// What a tile of queries sees of a block of keys: nothing, a range of it, all of it. Only where that leaves a doubt are
// scores hidden one by one.
#pragma once

#include "cpu/forward/tile.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// A block of keys as the visibility rules see it.
struct Block {
  int first, last;                          // keys
  std::int32_t document_min, document_max;  // over its keys
};

/// The part [first, last) of a block that a tile multiplies, counted from the block's first key, in whole register
/// tiles; empty if it sees nothing. The flags say which rules must be tested key by key.
struct Visit {
  int first = 0, last = 0;
  bool by_position = false, by_document = false, by_block_mask = false;
  bool hides = false;  // any of these, or the mask
  bool sees() const { return first < last; }
};

inline Block block_of(const ForwardTask& task, std::int64_t first, std::int64_t last) {
  Block block{.first = int(first), .last = int(last), .document_min = 0, .document_max = 0};
  if (task.key_documents == nullptr) return block;
  block.document_min = block.document_max = task.key_documents[first * task.key_document_stride];
  for (std::int64_t j = first + 1; j < last; ++j) {
    const std::int32_t document = task.key_documents[j * task.key_document_stride];
    block.document_min = document < block.document_min ? document : block.document_min;
    block.document_max = document > block.document_max ? document : block.document_max;
  }
  return block;
}

STROBE_INLINE const char* score_row(const ForwardTask&, const ScoreRows& rows, const Tile& tile, int lane) {
  return rows.data + tile.head[lane] * rows.head_stride + tile.query_index[lane] * rows.row_stride;
}

STROBE_INLINE const char* block_mask_row(const ForwardTask& task, const Tile& tile, int lane) {
  return task.block_mask.data + tile.head[lane] * task.block_mask.head_stride +
         tile.query_index[lane] / task.block_rows * task.block_mask.row_stride;
}

/// Narrows [first, last) to the columns of the block mask that some row keeps, and says whether all rows keep all.
inline bool narrow_by_block_mask(const ForwardTask& task, const Tile& tile, int& first, int& last) {
  const std::int64_t columns = task.block_columns;
  std::int64_t kept_first = last, kept_last = first;
  bool all = true;
  for (std::int64_t column = first / columns; column * columns < last; ++column) {
    bool any_here = false;
    const char* previous = nullptr;
    for (int lane = 0; lane < tile.rows; ++lane) {
      const char* const row = block_mask_row(task, tile, lane);
      if (row == previous) continue;
      previous = row;
      const bool kept = row[column * task.block_mask.column_stride] != 0;
      any_here |= kept;
      all &= kept;
    }
    if (!any_here) continue;
    if (column * columns < kept_first) kept_first = column * columns;
    kept_last = (column + 1) * columns;
  }
  if (kept_first > first) first = int(kept_first);
  if (kept_last < last) last = int(kept_last);
  return all;
}

/// Vectors of a tile, of its first ones, whose positions are before those that see key j or any after it.
STROBE_INLINE int hidden_vectors(const ForwardTask& task, const Tile& tile, std::int64_t j) {
  int hidden = 0;
  while (j >= task.prefix && hidden < kTileVectors && tile.vector_last[hidden] <= j) ++hidden;
  return hidden;
}

inline Visit visit_of(const ForwardTask& task, const Tile& tile, const Block& block) {
  int first = tile.first_min > block.first ? tile.first_min : block.first;
  int last = tile.last_max < block.last ? tile.last_max : block.last;
  if (task.prefix > block.first) {
    first = block.first;
    const int prefix = task.prefix < block.last ? int(task.prefix) : block.last;
    last = prefix > last ? prefix : last;
  }
  if (first >= last) return {};
  Visit visit;
  if (task.key_documents != nullptr) {
    if (tile.document_max < block.document_min || tile.document_min > block.document_max) return {};
    visit.by_document = tile.document_min != tile.document_max || block.document_min != block.document_max ||
                        tile.document_min != block.document_min;
  }
  if (task.block_mask.data != nullptr) {
    visit.by_block_mask = !narrow_by_block_mask(task, tile, first, last);
    if (first >= last) return {};
  }
  visit.first = round_down(first - block.first, kKeyRows);
  visit.last = round_up(last - block.first, kKeyRows);
  const int visit_last = block.first + visit.last;
  visit.by_position = (block.first + visit.first < tile.first_max || visit_last > tile.last_min) &&
                      !(visit_last <= task.prefix && visit_last <= task.key_length);
  visit.hides = visit.by_position || visit.by_document || visit.by_block_mask || task.mask.data != nullptr;
  return visit;
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
