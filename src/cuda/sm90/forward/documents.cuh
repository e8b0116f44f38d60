// Before the forward kernel, where there are documents: the smallest and largest document of every 64 queries and of
// every block of keys, so that tiles need not look at all keys to know which blocks to visit. A warp sums up one block.
// Where documents follow one another in order, as they do in practice, such ranges tell exactly which blocks have one
// in common with a tile.
#pragma once

#include "cuda/device/survey.cuh"
#include "cuda/sm90/forward/params.hpp"
#include "cuda/sm90/forward/tiles.hpp"

namespace strobe::cuda::sm90 {

/// Where the blocks of sequence b begin among those of all: `slots` each, or, where sequences are packed and the first
/// of its rows is number `first`, so many that there is room for all that start before it.
STROBE_DEVICE int first_slot(int first, int rows_together, int b, int slots, bool packed) {
  return packed ? first / rows_together + b : b * slots;
}

/// Block number `block` of all sequences' queries, or keys, each of `rows_together` rows.
STROBE_DEVICE void sum_up_documents(const ForwardParams& f, bool keys, int block) {
  const AttentionParams& p = f.attention;
  const int rows_together = keys ? f.key_block : kWarpgroupRows, slots = keys ? f.key_slots : f.query_slots;
  const bool packed = keys ? p.packed_keys : p.packed_queries;
  int b = 0;
  if (packed) {
    const VectorView& offsets = keys ? p.key_offsets : p.query_offsets;
    if (!find_packed_tile(offsets, p.batch, keys ? p.key_length : p.query_length, rows_together, block, b)) return;
  } else {
    b = block / slots;
    block -= b * slots;
  }
  const Sequence s = sequence_of(p, b);
  const int first = block * rows_together, last = smaller(first + rows_together, keys ? s.keys : s.queries);
  DocumentRange range{0x7fffffff, -0x7fffffff - 1};  // of no rows: nothing in common with others
  if (first < last) range = documents_of(keys ? key_documents(p, s) : query_documents(p, s), first, last);
  if (lane_index() != 0) return;
  const int slot = first_slot(keys ? s.first_key : s.first_query, rows_together, b, slots, packed) + block;
  int* const to = (keys ? f.key_documents : f.query_documents) + 2 * slot;
  to[0] = range.low;
  to[1] = range.high;
}

STROBE_DEVICE void sum_up_documents(const ForwardParams& f) {
  const int warp = int(blockIdx.x) * (kDocumentThreads / kWarpLanes) + warp_index();
  if (warp < f.query_blocks) {
    sum_up_documents(f, false, warp);
  } else if (warp < f.query_blocks + f.key_blocks) {
    sum_up_documents(f, true, warp - f.query_blocks);
  }
}

}  // namespace strobe::cuda::sm90
