// factors.hpp's work where factors are sums of bf16 values: rows become pieces, tile register by tile register, the
// pieces of each one after another. A tile of the left factor has rows, one of the right factor columns, of words.
#pragma once

#include "cpu/backward/factors.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Dimensions [d, d + kLanes) of a row, zero past its end and where there is no row.
template <class T>
STROBE_INLINE Floats row_dims(const T* row, int d, int dim) {
  if (row == nullptr || d >= dim) return zero();
  return dim - d < kLanes ? load_first(row + d, dim - d) : load(row + d);
}

/// Stores a row of each piece's tile.
template <int kParts>
STROBE_INLINE void store_pieces(float* tile, int row, const Pairs (&pieces)[kParts]) {
  auto* const words = reinterpret_cast<std::uint32_t*>(tile) + row * kTileEdge;
  for (int piece = 0; piece < kParts; ++piece) store_pairs(words + piece * kTileWords, pieces[piece]);
}

/// Words that `count` rows of pairs of dimensions take, and so where pairs of rows begin.
template <int kParts>
STROBE_INLINE std::ptrdiff_t split_row_words(int dim, int count) {
  return kParts * std::ptrdiff_t(count) * panel_words<PairOperand>(dim);
}

/// Rows [count] (a multiple of 32; null: zeros) to [count / 16][words / 16] tiles of rows of pairs of dimensions, and
/// to [dim / 16][tile_rows / 32] tiles of dimensions of pairs of rows.
template <int kParts, class T>
STROBE_INLINE void split_left(const T* const* rows, int count, int tile_rows, int dim, float* to) {
  const int words = panel_words<PairOperand>(dim), steps = tile_rows / kTileSide;
  float* const pairs = to + split_row_words<kParts>(dim, tile_rows);
  Pairs pieces[kParts];
  for (int row = 0; row < count; ++row) {
    float* const tiles = to + kParts * kTileEdge * (row / kTileEdge) * words;
    for (int word = 0; word < words; word += kTileEdge) {
      split_row(row_dims(rows[row], 2 * word, dim), row_dims(rows[row], 2 * word + kLanes, dim), pieces);
      store_pieces<kParts>(tiles + kParts * kTileEdge * word, row % kTileEdge, pieces);
    }
  }
  for (int row = 0; row < count; row += kTileSide) {
    for (int d = 0; d < dim; d += kTileEdge) {
      Floats tiles[kParts][kTileEdge];
      for (int i = 0; i < kTileEdge; ++i) {
        split_pairs(row_dims(rows[row + 2 * i], d, dim), row_dims(rows[row + 2 * i + 1], d, dim), pieces);
        for (int piece = 0; piece < kParts; ++piece) tiles[piece][i] = reinterpret_cast<Floats>(pieces[piece]);
      }
      float* const tile = pairs + kParts * kTileWords * (d / kTileEdge * steps + row / kTileSide);
      for (int piece = 0; piece < kParts; ++piece) {
        transpose(tiles[piece]);
        for (int i = 0; i < kTileEdge; ++i) store(tile + piece * kTileWords + i * kTileEdge, tiles[piece][i]);
      }
    }
  }
}

/// Query rows of a tile.
constexpr int kSplitTileRows = 64;

/// Stages query-side rows; those whose LSE is infinite see no key and become zeros.
template <int kParts>
void stage_tile(const TaskRows& rows, const QueryTile& tile, int dim, const float* lse, int tile_rows, float* to, int,
                const SplitOperand<kParts>*) {
  const auto stage = [&]<class T>(const T* data) {
    const T* const from = data + tile.head * rows.head_stride + tile.first * rows.row_stride;
    const T* used[kSplitTileRows];
    for (int row = 0; row < tile.padded; ++row) {
      const bool sees = row < tile.count && lse[row] != __builtin_huge_valf();
      used[row] = sees ? from + row * rows.row_stride : nullptr;
    }
    split_left<kParts>(used, tile.padded, tile_rows, dim, to);
  };
  if (rows.type == DataType::kFloat32) return stage(reinterpret_cast<const float*>(rows.data));
  stage(reinterpret_cast<const Half*>(rows.data));
}

/// float32 rows to panels: [keys / 16][words / 16] tiles of words of dimensions.
template <int kParts>
void stage_panels(float* rows, int stride, int keys, int dim, float* panels, const SplitOperand<kParts>*) {
  const int width = vectors_of(dim) * kLanes, words = panel_words<PairOperand>(dim);
  for (int key = 0; key < keys; key += kTileEdge) {
    for (int d = 0; d < 2 * words; d += kLanes) {
      Floats block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = d < width ? load(rows + (key + i) * stride + d) : zero();
      transpose(block);
      float* const tile = panels + kParts * kTileEdge * (key / kTileEdge * words + d / kTileSide * kTileEdge);
      for (int i = 0; i < kLanes; i += 2) {
        Pairs pieces[kParts];
        split_pairs(block[i], block[i + 1], pieces);
        store_pieces<kParts>(tile, (d % kTileSide + i) / 2, pieces);
      }
    }
  }
}

/// float32 rows to [keys / 32][dim / 16] tiles of pairs of neighbouring keys.
template <int kParts>
void stage_pairs(const BackwardTask& task, const KeyBlock& block, const float* rows, float* pairs,
                 const SplitOperand<kParts>*) {
  const int stride = task.layout->head_stride, width = vectors_of(task.head_dim) * kLanes;
  for (int key = 0; key < block.padded; key += 2) {
    for (int d = 0; d < width; d += kLanes) {
      const float* const low = rows + key * stride + d;
      Pairs pieces[kParts];
      split_pairs(load(low), load(low + stride), pieces);
      float* const tile = pairs + kParts * kTileEdge * (key / kTileSide * width + d);
      store_pieces<kParts>(tile, key % kTileSide / 2, pieces);
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
