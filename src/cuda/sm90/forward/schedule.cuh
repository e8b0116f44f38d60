// Who computes what, in which order: query tiles to thread blocks, key blocks to a tile. One thread works it out, a
// tile ahead, and leaves it in shared memory for producer and consumers.
#pragma once

#include "cuda/sm90/forward/config.cuh"
#include "cuda/sm90/forward/ring.cuh"

namespace strobe::cuda::sm90 {

/// One tile of queries of one head, and the key blocks [first_block, blocks) that it sees, visited from the last to the
/// first.
template <class C>
struct Task {
  bool there;  // false: no more tiles
  int head, kv_head;
  int blocks, first_block;
  Sequence s;
  TileView views[C::kConsumers];  // of each consumer's 64 rows

  STROBE_DEVICE int last_block() const { return blocks - 1; }
  STROBE_DEVICE bool sees_nothing() const { return blocks <= first_block; }
};

/// The rows [first_row, first_row + rows) of a sequence, which may have none of them.
STROBE_DEVICE TileView view_of_rows(const AttentionParams& p, const Sequence& s, int first_row, int rows) {
  if (first_row < s.queries) return view_of(p, s, first_row, rows);
  TileView nothing{};
  nothing.first_row = nothing.last_row = first_row;
  return nothing;
}

template <class C>
STROBE_DEVICE void describe(const ForwardParams& f, int index, Task<C>& task) {
  const AttentionParams& p = f.attention;
  // Heads come in groups whose keys the cache holds; within a group the tiles that see most keys come first, so that
  // tiles which start last are short.
  const int group_tiles = f.heads_per_group * f.tiles;
  const int first_head = index / group_tiles * f.heads_per_group;
  const int heads = smaller(f.heads_per_group, f.heads - first_head), place = index % group_tiles;
  int tile = f.tiles - 1 - place / heads, head = first_head + place % heads, b = head / p.query_heads;
  Sequence s{};  // past the last packed sequence: without rows
  if (!p.packed_queries || find_packed_tile(p, C::kQueryTile, tile, b)) s = sequence_of(p, b);
  const int first_row = tile * C::kQueryTile;
  const TileView view = view_of_rows(p, s, first_row, C::kQueryTile);
  task.there = true;
  task.s = s;
  task.head = head % p.query_heads;
  task.kv_head = task.head / p.group;
#pragma unroll
  for (int n = 0; n < C::kConsumers; ++n) {
    task.views[n] = view_of_rows(p, s, first_row + n * kWarpgroupRows, kWarpgroupRows);
  }
  task.first_block = view.begin / C::kKeyBlock;
  task.blocks = view.end > view.begin ? ceil_div(view.end, C::kKeyBlock) : 0;
}

/// The thread that hands out tiles: the first by the block's number, the others as blocks come for them.
template <class C>
struct Scheduler {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;

  STROBE_DEVICE void run() {
    Ring<C::kTasks> ring;
    const int count = f.tiles * f.heads;
    for (int index = int(blockIdx.x);;) {
      const int next = int(gridDim.x) + atomicAdd(f.tiles_taken, 1);  // arrives while this tile is described
      wait_for(memory.task_empty(ring.stage), ring.parity ^ 1);
      if (index < count) {
        describe<C>(f, index, tasks[ring.stage]);
      } else {
        tasks[ring.stage].there = false;
      }
      ptx::mbarrier_arrive(memory.task_full(ring.stage));
      if (index >= count) return;
      ring.advance();
      index = next;
    }
  }
};

}  // namespace strobe::cuda::sm90
