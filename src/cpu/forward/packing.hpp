// Keys and values laid out once for all tasks that read them: what is packed at a time, where it lies, and the chunks
// that do it. Scalar code for the forward driver alone.
//
// Rows of [batch, length, heads, dim] storage lie pages apart, and each head's task would walk over all those pages
// again. Packing takes the heads of a key one after the other, which is the order of memory.
#pragma once

#include <algorithm>

#include "cpu/forward/task.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {

/// Packed memory of as many heads as fit into kPackedBytes, which a second-level or shared cache may keep; of a single
/// head if that is larger, up to kMostPackedBytes. Beyond it tasks stage for themselves.
inline constexpr std::size_t kPackedBytes = std::size_t(16) << 20;
inline constexpr std::size_t kMostPackedBytes = std::size_t(64) << 20;

/// Sequences [first_batch, last_batch) and KV heads [first_head, last_head) that are worked on at the same time.
struct Round {
  std::int64_t first_batch, last_batch, first_head, last_head;
  std::int64_t heads() const { return last_head - first_head; }
};

/// Key blocks of one head in packed memory: of a sequence, or of all sequences where these are packed end to end.
inline std::int64_t packed_blocks(const Problem& problem, const ForwardUnit& unit) {
  const std::int64_t keys = problem.packed_keys ? problem.total_keys : problem.key_length;
  return (keys + unit.key_block - 1) / unit.key_block + (problem.packed_keys ? problem.batch : 0);
}

inline std::size_t packed_block_bytes(const Problem& problem, const ForwardUnit& unit) {
  return unit.packed_bytes(problem.query_type, problem.key_type, int(problem.head_dim), int(problem.value_dim));
}

/// Fills packed_sequences and packed_heads: how much is packed at a time.
inline void size_packing(const Problem& problem, const ForwardUnit& unit, Decision& decision) {
  const std::size_t head = std::size_t(packed_blocks(problem, unit)) * packed_block_bytes(problem, unit);
  if (head == 0 || head > kMostPackedBytes) return;
  const auto fitting = std::int64_t(std::max<std::size_t>(kPackedBytes / head, 1));
  decision.packed_heads = std::clamp<std::int64_t>(fitting, 1, problem.kv_heads);
  const std::int64_t sequences = std::clamp<std::int64_t>(fitting / problem.kv_heads, 1, problem.batch);
  decision.packed_sequences = problem.packed_keys ? problem.batch : sequences;
}

inline std::size_t packed_memory_bytes(const Problem& problem, const ForwardUnit& unit, const Decision& decision) {
  const std::int64_t sequences = problem.packed_keys ? 1 : decision.packed_sequences;
  return std::size_t(sequences * decision.packed_heads * packed_blocks(problem, unit)) *
         packed_block_bytes(problem, unit);
}

/// Where the packed blocks of a sequence's KV head begin. Sequences that lie end to end share no block: the b-th one
/// begins b blocks later than its keys alone would say.
inline std::int64_t first_packed_block(const Problem& problem, const ForwardUnit& unit, const Round& round,
                                       const Sequence& s, std::int64_t kv_head) {
  const std::int64_t blocks = packed_blocks(problem, unit), head = kv_head - round.first_head;
  if (problem.packed_keys) return head * blocks + s.first_key / unit.key_block + s.batch;
  return ((s.batch - round.first_batch) * round.heads() + head) * blocks;
}

}  // namespace strobe::cpu
