// Tuning constants of the prefill kernel, one row an instruction set, and the sizes that follow from them. What was
// measured to choose them is in README.md.
#pragma once

#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

struct Tuning {
  int key_block;  // keys staged at a time; a multiple of the register tile's rows
  int max_tiles;  // query tiles that share a staged key block
};
constexpr Tuning kTunings[] = {
    {.key_block = 64, .max_tiles = 8},  // sse4
    {.key_block = 64, .max_tiles = 8},  // avx2
    {.key_block = 64, .max_tiles = 8},  // avx512
    {.key_block = 64, .max_tiles = 8},  // avx512_bf16
};

constexpr int kKeyBlock = kTunings[STROBE_ISA_ID].key_block;
constexpr int kMaxTiles = kTunings[STROBE_ISA_ID].max_tiles;
constexpr int kTileWidth = kTileVectors * kLanes;  // query rows of a tile

static_assert(kKeyBlock % kTileRows == 0 && kTileRows % 4 == 0, "dropout draws for four neighbouring keys");

constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }
constexpr int round_down(int n, int unit) { return n / unit * unit; }

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
