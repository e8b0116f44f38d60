// From a Problem and its Buffers to what kernels take. Every kernel family's launch code begins here.
#pragma once

#include "base/problem.hpp"
#include "cuda/params.hpp"

namespace strobe::cuda {

RowsView view_of(const Rows& rows, std::int64_t dim);
ScoresView view_of(const Scores& scores);
VectorView view_of(const Vectors& vectors);

AttentionParams params_of(const Problem& problem, const Buffers& buffers);
/// The same, written to where all is zero.
void describe(const Problem& problem, const Buffers& buffers, AttentionParams& params);

/// The Feature bits of the kernel that serves the problem: none, a single one, or all. Kernels are compiled for these
/// only, since every subset would be 256 of them.
int features_of(const Problem& problem);

/// Tiles of so many query rows that a sequence has; of packed ones, whose lengths lie in device memory, an upper bound
/// of all: each may have one tile that is not full, or be empty.
std::int64_t query_tiles_of(const Problem& problem, int tile_rows);
/// Heads that have such tiles of their own: of all sequences, but of packed ones, whose tiles are counted together.
std::int64_t tiled_heads_of(const Problem& problem);

/// Numbers that backward passes give to all sequences' query tiles. Of packed ones an upper bound, where rows behind
/// the last sequence have tiles too.
std::int64_t query_slots_of(const Problem& problem, int tile_rows);
/// Blocks of so many keys that a sequence has; of packed ones an upper bound of all, with those behind the last one.
std::int64_t key_blocks_of(const Problem& problem, int block_keys);
/// KV heads that have such blocks of their own.
std::int64_t blocked_heads_of(const Problem& problem);
/// Groups of like sizes, about so many heads each: a small last one would leave most of the GPU idle.
HeadGroups in_groups(int heads, int of_group);

/// @throws Error, which names `tensors`, the kernel and the function that plans by itself, if a plan for regular rows
/// is run with others.
void require_regular_rows(const Problem& problem, const char* tensors, const char* kernel, const char* function);

}  // namespace strobe::cuda
