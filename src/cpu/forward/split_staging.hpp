// staging.hpp's work where values are sums of bf16 pieces: rows become pieces, each in the layout that the products on
// tile registers read, one after another.
#pragma once

#include "cpu/forward/staging.hpp"
#include "cpu/forward/tile_products.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// query [kPieces][words][kTileWidth] = pairs of neighbouring elements of rows * factor; words are whole vectors.
template <int kPieces>
void stage_split_query(const ForwardTask& task, const Tile& tile, float factor, int words, std::uint32_t* query) {
  with_type(task.query, task.query_type, [&]<class T>(const T*) {
    for (int lane = 0; lane < kTileWidth; lane += kLanes) {
      for (int d = 0; d < 2 * words; d += kLanes) {
        Floats block[kLanes];
        for (int row = 0; row < kLanes; ++row) {
          block[row] = zero();
          if (lane + row >= tile.rows || d >= task.head_dim) continue;
          const T* const from = reinterpret_cast<const T*>(query_row(task, tile, lane + row));
          block[row] = mul(load_dims(from, d, task.head_dim), broadcast(factor));
        }
        transpose(block);
        for (int i = 0; i < kLanes; i += 2) {
          Pairs pieces[kPieces];
          split_pairs(block[i], block[i + 1], pieces);
          std::uint32_t* const to = query + (d + i) / 2 * kTileWidth + lane;
          for (int piece = 0; piece < kPieces; ++piece) store_pairs(to + piece * query_piece(words), pieces[piece]);
        }
      }
    }
  });
}

/// Dimensions [d, d + kLanes) of a row, zero past its end and where there is no row.
template <class T>
STROBE_INLINE Floats row_dims(const char* row, int d, int dim) {
  return row != nullptr && d < dim ? load_dims(reinterpret_cast<const T*>(row), d, dim) : zero();
}

/// Rows [first, last) of the block that starts at key `block`: keys [kPieces][keys / 16][words / 16][16][16] and values
/// [kPieces][value_dim / 16][kKeyBlock / 32][16][16 pairs of neighbouring keys]; zeros past the sequence's end.
template <int kPieces>
void stage_split_block(const ForwardTask& task, int block, int first, int last, int words, std::uint32_t* keys,
                       std::uint32_t* values) {
  const int end = block + last <= task.key_length ? last : int(task.key_length) - block;
  const auto row_of = [&](const KeyRows& rows, int key) {
    return key < end ? row_address(rows, block + key) : nullptr;
  };
  prefetch_rows(task, block + first, block + end);
  with_type(task.key.data, task.key_type, [&]<class T>(const T*) {
    Pairs pieces[kPieces];
    for (int key = first; key < last; ++key) {
      std::uint32_t* const to = keys + (key / kTileEdge * words + key % kTileEdge) * kTileEdge;
      const char* const row = row_of(task.key, key);
      for (int word = 0; word < words; word += kTileEdge) {
        split_row(row_dims<T>(row, 2 * word, task.head_dim), row_dims<T>(row, 2 * word + kLanes, task.head_dim),
                  pieces);
        for (int piece = 0; piece < kPieces; ++piece) {
          store_pairs(to + piece * key_piece(words) + word * kTileEdge, pieces[piece]);
        }
      }
    }
    for (int key = first; key < last; key += kKeyRows) {
      for (int d = 0; d < task.value_dim; d += kTileEdge) {
        Floats rows[kPieces][kTileEdge];
        for (int i = 0; i < kTileEdge; ++i) {
          const int low = key + 2 * i;
          split_pairs(row_dims<T>(row_of(task.value, low), d, task.value_dim),
                      row_dims<T>(row_of(task.value, low + 1), d, task.value_dim), pieces);
          for (int piece = 0; piece < kPieces; ++piece) rows[piece][i] = reinterpret_cast<Floats>(pieces[piece]);
        }
        float* const to = reinterpret_cast<float*>(values + (d * kKeyBlock / 2 + key / 2 * kTileEdge));
        for (int piece = 0; piece < kPieces; ++piece) {
          transpose(rows[piece]);
          for (int i = 0; i < kTileEdge; ++i) {
            store(to + piece * value_piece(task.value_dim) + i * kTileEdge, rows[piece][i]);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
