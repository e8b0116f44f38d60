// Tuning constants of the prefill kernel, one row an instruction set, and the sizes that follow from them. What was
// measured to choose them is in README.md.
#pragma once

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

struct Tuning {
  int key_block;    // keys that a tile meets at a time; a multiple of key_rows
  int key_rows;     // keys of one register tile
  int span_blocks;  // blocks that are staged together
  int tile_bytes;   // queries and outputs of all tiles that share what is staged
};
constexpr Tuning kTunings[] = {
    {.key_block = 64, .key_rows = kTileRows, .span_blocks = 4, .tile_bytes = 1024 << 10},  // sse4
    {.key_block = 64, .key_rows = kTileRows, .span_blocks = 4, .tile_bytes = 1024 << 10},  // avx2
    {.key_block = 64, .key_rows = kTileRows, .span_blocks = 4, .tile_bytes = 1024 << 10},  // avx512
    {.key_block = 64, .key_rows = kTileRows, .span_blocks = 4, .tile_bytes = 1024 << 10},  // avx512_bf16
    {.key_block = 128, .key_rows = 32, .span_blocks = 2, .tile_bytes = 1024 << 10},        // amx_bf16
};

constexpr int kKeyBlock = kTunings[STROBE_ISA_ID].key_block;
constexpr int kKeyRows = kTunings[STROBE_ISA_ID].key_rows;
constexpr int kSpanBlocks = kTunings[STROBE_ISA_ID].span_blocks;
constexpr int kSpan = kSpanBlocks * kKeyBlock;
constexpr int kMaxTiles = 64;
constexpr int kPackedRows = kKeyRows > 16 ? kKeyRows : 16;  // keys that are packed at a time: whole register tiles
constexpr int kTileWidth = kTileVectors * kLanes;           // query rows of a tile

static_assert(kKeyBlock % kKeyRows == 0 && kKeyRows % kTileRows == 0 && kTileRows % 4 == 0,
              "dropout draws for four neighbouring keys");

/// Output dimensions of a register tile: values lie in blocks of so many.
template <class Operand>
constexpr int kValueRows = Operand::kInTiles ? 16 : kTileRows;

constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
constexpr int round_down(int n, int unit) { return n / unit * unit; }

/// Words between the pieces of a block's keys, of its values, of a tile's queries and of its weights, where what
/// products multiply is split (simd/operands.hpp).
constexpr std::ptrdiff_t key_piece(int words) { return std::ptrdiff_t(kKeyBlock) * words; }
constexpr std::ptrdiff_t value_piece(int dims) { return std::ptrdiff_t(kKeyBlock / 2) * round_up(dims, kLanes); }
constexpr std::ptrdiff_t query_piece(int words) { return std::ptrdiff_t(kTileWidth) * words; }
constexpr std::ptrdiff_t kWeightPiece = kKeyBlock / 2 * kTileWidth;

/// Query tiles that share a staged key block. The more, the less often keys and values are fetched and laid out, which
/// costs most where a head's rows lie in pages of their own.
inline int max_tiles(int head_dim, int value_dim) {
  const int row_floats = round_up(head_dim, kLanes) + round_up(value_dim, kLanes);
  const int tiles = kTunings[STROBE_ISA_ID].tile_bytes / (row_floats * kTileWidth * int(sizeof(float)));
  return tiles < 4 ? 4 : tiles < kMaxTiles ? tiles : kMaxTiles;
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
