// Who computes what, in which order: query tiles to thread blocks, key blocks to a tile. One thread works it out,
// ahead of the others, and leaves it in shared memory for them.
#pragma once

#include "cuda/device/groups.cuh"
#include "cuda/sm90/forward/config.cuh"
#include "cuda/sm90/forward/ring.cuh"

namespace strobe::cuda::sm90 {

/// A consumer's 64 rows of a tile, and all that it must know of them, worked out once.
struct alignas(16) ConsumerRows {
  int top, end;             // some row sees a key in the blocks from `top` down to `end`, without that one
  int before, behind;       // blocks of the task that none of the rows sees
  int first_row, last_row;  // of the sequence's queries
  int last_stored;          // rows [last_row, last_stored) exist, but are not in use
  int tail;                 // keys of block `top` that are in use, if not all are; else 0
  int all_first, all_last;  // every row sees the keys [all_first, all_last)
  bool there;               // false: no more tasks
  bool copied;              // outputs go by way of the copy engine
  bool simple;              // nothing to see to but the blocks: before, behind and tail are 0, 64 rows are copied
  float* lse;               // of first_row; null if nobody wants it

  STROBE_DEVICE int blocks() const { return top - end; }
};

/// What a task knows besides, where options ask for it: the head's slope; which blocks to visit (survey.cuh).
template <bool kAlibi>
struct AlibiFacts {};
template <>
struct AlibiFacts<true> {
  float slope;  // of the head, in powers of two
};

template <bool kSurveys, int kConsumers>
struct SurveyFacts {};
template <int kConsumers>
struct SurveyFacts<true, kConsumers> {
  int group_bits;                     // 2^group_bits blocks share a bit
  int count;                          // of blocks to visit
  u32 some[kSurveyWords];             // blocks to visit
  u32 all[kConsumers][kSurveyWords];  // blocks of which data hide nothing from a consumer's rows
};

/// One tile of queries of one head, or of heads that share it, and the key blocks that it sees: from `top` down to
/// `end`, without that one; of these only some, if the task has been surveyed.
template <class C>
struct Task : AlibiFacts<C::kFeatures == kAlibi>, SurveyFacts<C::kSurveys, C::kConsumers> {
  bool there;
  int head, kv_head;  // the first of those that share the tile
  int top, end;
  Sequence s;      // of which keys are a split's, as if there were no others
  int output_row;  // of the batch of outputs: each split has its own
  ConsumerRows rows[C::kConsumers];

  STROBE_DEVICE int blocks() const {
    if constexpr (C::kSurveys) {
      return this->count;
    } else {
      return top - end;
    }
  }
  /// The block to visit after this one, or `end`.
  STROBE_DEVICE int after(int block) const {
    if constexpr (C::kSurveys) {
      if (--block <= end) return end;
      const int bits = this->group_bits, group = block >> bits;
      int word = group / kWarpLanes;
      u32 found = this->some[word] & ~0u >> (kWarpLanes - 1 - group % kWarpLanes);
      while (found == 0) found = this->some[--word];  // there is one: the last before `end`
      const int next = word * kWarpLanes + kWarpLanes - 1 - __clz(int(found));
      return next == group ? block : ((next + 1) << bits) - 1;
    } else {
      return block - 1;
    }
  }
};

/// The sequence as its outputs and LSE lie.
template <class C>
STROBE_DEVICE Sequence outputs_of(const Task<C>& task) {
  Sequence s = task.s;
  s.batch = task.output_row;
  return s;
}

/// The part of a sequence that is one split of its keys.
STROBE_DEVICE Sequence split_of(Sequence s, int split, int split_keys) {
  const int first = split * split_keys;
  s.first_key += first;
  s.shift -= first;
  s.keys = clamped(s.keys - first, 0, split_keys);
  return s;
}

/// Queries that a warpgroup's rows are of; heads that each of them has there.
template <class C>
STROBE_DEVICE int queries_of_warpgroup(const ForwardParams& f) {
  return C::kSharesTiles ? f.sharing.queries : kWarpgroupRows;
}
template <class C>
STROBE_DEVICE int heads_of_tile(const ForwardParams& f) {
  return C::kSharesTiles ? f.sharing.heads : 1;
}
/// Warpgroups that so many queries take.
template <class C>
STROBE_DEVICE int warpgroups_of(const ForwardParams& f, int queries) {
  if constexpr (!C::kSharesTiles) return ceil_div(queries, kWarpgroupRows);
  return int(u64(queries + f.sharing.queries - 1) * f.sharing.queries_inverse >> 32);
}

/// Whose row it is of a warpgroup's 64: so many queries after the first, so many heads after the task's.
struct TileRow {
  int query, head;
};
template <class C>
STROBE_DEVICE TileRow tile_row(const ForwardParams& f, int row) {
  if constexpr (!C::kSharesTiles) return {row, 0};
  const int query = int(u32(row) * f.sharing.heads_inverse >> 16);
  return {query, row - query * f.sharing.heads};
}

/// Whether the outputs of rows that see something go by way of the copy engine.
template <class C>
STROBE_DEVICE bool copies(const AttentionParams& p, int first_row, int last_row, int queries) {
  const bool ends_with_tensor = !p.packed_queries && p.query_lengths.data == nullptr;
  return C::kStagesOutput && p.output.type != Element::kFloat32 &&
         (ends_with_tensor || first_row + queries <= last_row);
}

/// Rows of a sequence as positions have it.
template <class C>
STROBE_DEVICE ConsumerRows rows_from(const ForwardParams& f, const Task<C>& task, int first_row) {
  const AttentionParams& p = f.attention;
  const Sequence& s = task.s;
  const int queries = queries_of_warpgroup<C>(f);
  ConsumerRows rows{};
  rows.there = true;
  rows.first_row = rows.last_row = first_row;
  rows.last_stored = smaller(first_row + queries, s.stored_queries);
  if (first_row >= s.queries) return rows;
  const TileView view = view_of(p, s, first_row, queries);
  rows.last_row = view.last_row;
  rows.all_first = view.all_first;
  rows.all_last = view.all_last;
  if (p.lse.data) rows.lse = &lse_at(p, outputs_of(task), task.head, first_row);
  if (C::kSurveys || view.begin >= view.end) return rows;
  rows.end = view.begin / C::kKeyBlock - 1;
  rows.top = ceil_div(view.end, C::kKeyBlock) - 1;
  if ((rows.top + 1) * C::kKeyBlock > s.keys) rows.tail = s.keys - rows.top * C::kKeyBlock;
  rows.copied = copies<C>(p, first_row, rows.last_row, queries);
  return rows;
}

/// The first query of a consumer's rows of a tile; without rows, the first that does not
/// exist. Only a sequence's first tile may be short, which sees fewest keys where a mask is causal: those that compute
/// beside nobody do so for the shortest time.
template <class C>
STROBE_DEVICE int first_row_of(const ForwardParams& f, const Sequence& s, int tile, int consumer) {
  const int groups = warpgroups_of<C>(f, s.stored_queries), own = tile * C::kConsumers + consumer;
  const int absent = ceil_div(groups, C::kConsumers) * C::kConsumers - groups;
  if (tile == 0 && consumer >= C::kConsumers - absent) return s.stored_queries;
  return (tile == 0 ? own : own - absent) * queries_of_warpgroup<C>(f);
}

/// Tile number `index`. Where it is surveyed, what blocks it sees is still to come.
template <class C>
STROBE_DEVICE void describe(const ForwardParams& f, int index, Task<C>& task) {
  const AttentionParams& p = f.attention;
  // Heads come in groups whose keys the cache holds; within a group the tiles that see most keys come first, so that
  // tiles which start last are short.
  const auto [first_head, heads, place] = place_in_groups(f.groups, index, f.tiles);
  const int tiled_heads = C::kSharesTiles ? f.sharing.tiled_heads : p.query_heads;
  int tile = f.tiles - 1 - place / heads, head = first_head + place % heads, b = head / tiled_heads;
  task.output_row = b;
  const int split = f.splits > 1 ? b / p.batch : 0;
  b -= split * p.batch;
  Sequence s{};  // past the last packed sequence: without rows
  if (!p.packed_queries || find_packed_tile(p, C::kConsumers * queries_of_warpgroup<C>(f), tile, b))
    s = sequence_of(p, b);
  if (f.splits > 1) s = split_of(s, split, f.split_keys);
  task.there = true;
  task.s = s;
  task.head = head % tiled_heads * heads_of_tile<C>(f);
  task.kv_head = task.head / p.group;
  task.top = task.end = 0;
  if constexpr (C::kFeatures == kAlibi) task.slope = kLog2E * alibi_slope<C::kCommonFeatures>(p, s, task.head);
#pragma unroll 1
  for (int n = 0; n < C::kConsumers; ++n) {
    const ConsumerRows rows = task.rows[n] = rows_from<C>(f, task, first_row_of<C>(f, s, tile, n));
    if (C::kSurveys || rows.blocks() == 0) continue;
    task.end = task.blocks() == 0 ? rows.end : smaller(task.end, rows.end);
    task.top = larger(task.top, rows.top);
  }
  if constexpr (!C::kSurveys) {
#pragma unroll 1
    for (int n = 0; n < C::kConsumers; ++n) {
      ConsumerRows& rows = task.rows[n];
      if (rows.blocks() == 0) rows.top = rows.end = task.end;  // who sees nothing lets all blocks pass before the first
      rows.before = task.top - rows.top;
      rows.behind = rows.end - task.end;
      rows.simple = rows.copied && rows.before + rows.behind + rows.tail == 0 &&
                    rows.first_row + queries_of_warpgroup<C>(f) == rows.last_row && rows.last_stored <= rows.last_row;
    }
  }
}

/// There are no more tasks.
template <class C>
STROBE_DEVICE void describe_end(Task<C>& task) {
  task.there = false;
#pragma unroll
  for (int n = 0; n < C::kConsumers; ++n) task.rows[n].there = false;
}

}  // namespace strobe::cuda::sm90
