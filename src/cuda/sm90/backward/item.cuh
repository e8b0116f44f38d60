// Who computes what, in which order: blocks of keys to thread blocks. The producer works it out, an item ahead, and
// leaves it in shared memory for the others.
#pragma once

#include "cuda/device/groups.cuh"
#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm90/backward/config.cuh"

namespace strobe::cuda::sm90 {

/// Number `number`, as the thread block of this rank in its cluster has it.
template <class C>
STROBE_DEVICE BackwardItem item_of(const sm80::BackwardParams& f, int number, int rank) {
  const AttentionParams& p = f.attention;
  // Blocks of lower keys come first: under a causal mask they see most queries, and dQ's turns go by key block.
  const auto [first_head, heads, place] = place_in_groups(f.groups, number, f.blocks);
  const int head = first_head + place % heads;
  int block = place / heads, b = head / p.kv_heads, stored = p.key_length;
  BackwardItem item{.kv_head = head % p.kv_heads, .there = true};
  if (p.packed_keys) {
    const bool found = find_packed_tile(p.key_offsets, p.batch, p.key_length, C::kKeyBlock, block, b);
    const int first = clamped(read_int(p.key_offsets, found ? b : p.batch), 0, p.key_length);
    if (!found) {  // rows of the gradients that belong to no sequence
      item.s.first_key = first;
      item.block = block;
      item.first_key = block * C::kKeyBlock + rank * C::kOwnKeys;
      item.last_key = smaller(item.first_key + C::kOwnKeys, p.key_length - first);
      return item;
    }
    stored = clamped(read_int(p.key_offsets, b + 1), first, p.key_length) - first;
  }
  item.s = sequence_of(p, b);
  item.block = block;
  item.first_key = block * C::kKeyBlock + rank * C::kOwnKeys;
  item.last_key = smaller(item.first_key + C::kOwnKeys, stored);
  const sm80::Visits<ByPosition<C>> visits(p, item.s, block, item.kv_head);
  item.lowest = visits.sight.lowest;
  item.highest = visits.sight.highest;
  item.visited = !visits.first().none();
  return item;
}

/// The first of the item's keys that the other thread block of a cluster has.
template <class C>
STROBE_DEVICE int other_first_key(const BackwardItem& item, int rank) {
  return item.first_key + (rank == 0 ? C::kOwnKeys : -C::kOwnKeys);
}

/// The visits of an item by position.
template <class C>
STROBE_DEVICE sm80::Visits<ByPosition<C>> visits_of(const sm80::BackwardParams& f, const BackwardItem& item) {
  return {f.attention, item.s, item.block, item.kv_head};
}

}  // namespace strobe::cuda::sm90
