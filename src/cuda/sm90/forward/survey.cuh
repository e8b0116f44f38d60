// Which blocks of keys a tile visits where documents, a block mask or a prefix decide. The scheduler's warp looks at 32
// of them at a time and leaves bits in the task, one for each block; where keys are very many, one for several blocks,
// which then are visited together. The documents of blocks are summed up before (documents.cuh).
#pragma once

#include "cuda/sm90/forward/documents.cuh"
#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

/// What is known of a consumer's rows when blocks are looked at.
struct SurveyedRows {
  TileView view;
  DocumentRange documents;
};

template <class C>
STROBE_DEVICE DocumentRange documents_of_block(const ForwardParams& f, const Sequence& s, int block) {
  const int slot = first_slot(s.first_key, C::kKeyBlock, s.batch, f.key_slots, f.attention.packed_keys) + block;
  return {f.key_documents[2 * slot], f.key_documents[2 * slot + 1]};
}

/// What a block shows the rows: something by position and data; everything, as far as data go.
template <class C>
STROBE_DEVICE Shown look_at_block(const ForwardParams& f, const Sequence& s, int head, const SurveyedRows& rows,
                                  int block) {
  const AttentionParams& p = f.attention;
  const int first = block * C::kKeyBlock, last = smaller(first + C::kKeyBlock, s.keys);
  Shown shown{reaches(rows.view, first, last), true};
  if constexpr ((C::kFeatures & kBlockMask) != 0) {
    if (shown.some && asked_for<C::kCommonFeatures>(p.block_mask.data != nullptr))
      shown = block_mask_shows(p, s, head, rows.view, first, last);
  }
  if constexpr ((C::kFeatures & kDocuments) != 0) {
    if (asked_for<C::kCommonFeatures>(p.query_documents.data != nullptr)) {
      const DocumentRange keys = documents_of_block<C>(f, s, block);
      shown.some &= keys.low <= rows.documents.high && keys.high >= rows.documents.low;
      shown.all &= keys.is_one() && rows.documents.is_one() && keys.low == rows.documents.low;
    }
  }
  return shown;
}

/// Looks at all blocks for consumer n: its bits, and where its rows begin and end to see something.
template <class C>
STROBE_DEVICE void survey_rows(const ForwardParams& f, Task<C>& task, int n, int blocks) {
  const AttentionParams& p = f.attention;
  const Sequence s = task.s;
  ConsumerRows& rows = task.rows[n];
  const int bits = task.group_bits, lane = lane_index(), first_row = rows.first_row;
  const bool there = first_row < s.queries;
  SurveyedRows surveyed{};
  if (there) surveyed.view = view_of(p, s, first_row, kWarpgroupRows);
  if constexpr ((C::kFeatures & kDocuments) != 0) {
    const int slot = first_slot(s.first_query, kWarpgroupRows, s.batch, f.query_slots, p.packed_queries);
    const int* const range = f.query_documents + 2 * (slot + first_row / kWarpgroupRows);
    if (there && asked_for<C::kCommonFeatures>(p.query_documents.data != nullptr)) {
      surveyed.documents = {range[0], range[1]};
    }
  }
  int lowest = -1, highest = -1;
#pragma unroll 1
  for (int word = 0; word << bits << 5 < blocks; ++word) {
    const int group = word * kWarpLanes + lane, last = smaller((group + 1) << bits, blocks);
    Shown shown{false, true};
#pragma unroll 1
    for (int block = there ? group << bits : last; block < last; ++block) {
      const Shown here = look_at_block<C>(f, s, task.head, surveyed, block);
      shown.some |= here.some;
      shown.all &= here.all;
    }
    const u32 some = __ballot_sync(~0u, shown.some), all = __ballot_sync(~0u, shown.all);
    if (lane == 0) {
      task.some[word] = n == 0 ? some : task.some[word] | some;
      task.all[n][word] = all;
    }
    if (some == 0) continue;
    if (lowest < 0) lowest = word * kWarpLanes + __ffs(int(some)) - 1;
    highest = word * kWarpLanes + 31 - __clz(int(some));
  }
  if (lane != 0) return;
  rows.top = highest < 0 ? -1 : smaller((highest + 1) << bits, blocks) - 1;
  rows.end = highest < 0 ? -1 : (lowest << bits) - 1;
  if (highest < 0) return;
  if ((rows.top + 1) * C::kKeyBlock > s.keys) rows.tail = s.keys - rows.top * C::kKeyBlock;
  rows.copied = copies<C>(p, first_row, rows.last_row, kWarpgroupRows);
}

/// How many blocks of [first, last) the task visits; neither end is amid blocks that share a bit.
template <class C>
STROBE_DEVICE int count_blocks(const Task<C>& task, int first, int last, int blocks) {
  const int bits = task.group_bits, lane = lane_index();
  const auto group_of = [bits](int block) { return ceil_div(block, 1 << bits); };
  const auto below = [](int n) { return n >= kWarpLanes ? ~0u : (1u << larger(n, 0)) - 1u; };
  const int start = group_of(first) - lane * kWarpLanes, stop = group_of(last) - lane * kWarpLanes;
  const u32 mine = lane < kSurveyWords ? task.some[lane] & below(stop) & ~below(start) : 0u;
  int count = __popc(mine) << bits;
  const int groups = group_of(blocks), last_group = groups - 1 - lane * kWarpLanes;
  if (last_group >= 0 && last_group < kWarpLanes && (mine >> last_group & 1) != 0) count -= (groups << bits) - blocks;
  return __reduce_add_sync(~0u, count);
}

/// The task's blocks, and what its rows see of them. The whole warp works on it; lane 0 has described the rest.
template <class C>
STROBE_DEVICE void survey_task(const ForwardParams& f, Task<C>& task) {
  const int blocks = ceil_div(task.s.keys, C::kKeyBlock);
  if (lane_index() == 0) {
    task.group_bits = 0;
    while (blocks > kSurveyWords * kWarpLanes << task.group_bits) ++task.group_bits;
  }
  __syncwarp();
#pragma unroll 1
  for (int n = 0; n < C::kConsumers; ++n) survey_rows<C>(f, task, n, blocks);
  __syncwarp();
  int top = -1, end = -1;
#pragma unroll 1
  for (int n = 0; n < C::kConsumers; ++n) {
    const ConsumerRows& rows = task.rows[n];
    if (rows.blocks() == 0) continue;
    end = top < 0 ? rows.end : smaller(end, rows.end);
    top = larger(top, rows.top);
  }
  const int count = count_blocks(task, end + 1, top + 1, blocks);
#pragma unroll 1
  for (int n = 0; n < C::kConsumers; ++n) {
    ConsumerRows& rows = task.rows[n];
    const bool some = rows.blocks() != 0;
    const int rows_top = some ? rows.top : end, rows_end = some ? rows.end : end;
    const int before = count_blocks(task, rows_top + 1, top + 1, blocks),
              behind = count_blocks(task, end + 1, rows_end + 1, blocks);
    __syncwarp();
    if (lane_index() != 0) continue;
    rows.top = rows_top;
    rows.end = rows_end;
    rows.before = before;
    rows.behind = behind;
  }
  if (lane_index() == 0) {
    task.top = top;
    task.end = end;
    task.count = count;
  }
}

}  // namespace strobe::cuda::sm90
