// One block of 64 keys of a decode task: which rows see which of its keys, as bits, and where its rows lie.
#pragma once

#include "cpu/decode/tiles.hpp"
#include "cpu/forward/task.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

using Bits = std::uint64_t;  // bit n: key n of the block

/// One row of a task and the keys that its position lets it see.
struct QueryRow {
  std::int64_t query, head;  // i, and the head within the group
  KeyRange band;             // by causal and window
  KeyRange prefix;
};

struct Block {
  std::int64_t first;  // multiple of kKeys
  Bits any, all;       // keys that some row sees, and those that every row sees
  Bits* visible;       // [rows]
  const char* keys[kKeys];
  const char* values[kKeys];
};

STROBE_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
STROBE_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

STROBE_INLINE Bits low_bits(std::int64_t count) {
  return count <= 0 ? 0 : count >= kKeys ? ~Bits(0) : (Bits(1) << count) - 1;
}
STROBE_INLINE Bits range_bits(std::int64_t first, std::int64_t last) { return low_bits(last) & ~low_bits(first); }

QueryRow query_row(const ForwardTask& task, std::int64_t r) {
  const std::int64_t query = r / task.group, position = query + task.position_shift;
  const std::int64_t last = smaller(task.keys.last, task.key_length);
  return {.query = query,
          .head = r % task.group,
          .band = {larger(task.keys.first, position - task.left), smaller(last, position + task.right + 1)},
          .prefix = {task.keys.first, smaller(last, task.prefix)}};
}

/// Bit n for each nonzero one of eight bytes.
STROBE_INLINE Bits nonzero_bytes(const char* bytes) {
  Bits x;
  __builtin_memcpy(&x, bytes, 8);
  x |= x >> 4;
  x |= x >> 2;
  x |= x >> 1;
  return ((x & 0x0101010101010101u) * 0x0102040810204080u) >> 56;
}

Bits mask_bits(const ScoreRows& mask, const QueryRow& row, std::int64_t first, int count) {
  const char* at = mask.data + row.head * mask.head_stride + row.query * mask.row_stride + first * mask.column_stride;
  Bits bits = 0;
  int n = 0;
  if (mask.column_stride == 1) {
    for (; n + 8 <= count; n += 8) bits |= nonzero_bytes(at + n) << n;
  }
  for (; n < count; ++n) bits |= Bits(at[n * mask.column_stride] != 0) << n;
  return bits;
}

Bits block_mask_bits(const ForwardTask& task, const QueryRow& row, std::int64_t first, int count) {
  const ScoreRows& mask = task.block_mask;
  const char* at = mask.data + row.head * mask.head_stride + row.query / task.block_rows * mask.row_stride;
  Bits bits = 0;
  for (std::int64_t column = first / task.block_columns; column * task.block_columns < first + count; ++column) {
    if (at[column * mask.column_stride] == 0) continue;
    bits |= range_bits(column * task.block_columns - first, (column + 1) * task.block_columns - first);
  }
  return bits;
}

Bits document_bits(const ForwardTask& task, const QueryRow& row, std::int64_t first, int count) {
  const std::int32_t document = task.query_documents[row.query * task.query_document_stride];
  const std::int32_t* at = task.key_documents + first * task.key_document_stride;
  Bits bits = 0;
  for (int n = 0; n < count; ++n) bits |= Bits(at[n * task.key_document_stride] == document) << n;
  return bits;
}

/// The keys [first, first + 64) that a row sees.
Bits visible_bits(const ForwardTask& task, const QueryRow& row, std::int64_t first) {
  Bits bits = range_bits(row.band.first - first, row.band.last - first) |
              range_bits(row.prefix.first - first, row.prefix.last - first);
  const int count = int(smaller(kKeys, task.key_length - first));
  if (bits != 0 && task.block_mask.data != nullptr) bits &= block_mask_bits(task, row, first, count);
  if (bits != 0 && task.query_documents != nullptr) bits &= document_bits(task, row, first, count);
  if (bits != 0 && task.mask.data != nullptr) bits &= mask_bits(task.mask, row, first, count);
  return bits;
}

/// Addresses of the block's rows. A key that no row sees gets `zeros`: its memory is never read.
void locate(const KeyRows& rows, std::int64_t first, Bits any, const char* zeros, const char** out) {
  if (rows.page_table == nullptr) {
    const char* base = rows.data + first * rows.row_stride;
    for (int n = 0; n < kKeys; ++n) out[n] = base + n * rows.row_stride;
  } else {
    std::int64_t page = first / rows.page_size, slot = first % rows.page_size;
    for (int n = 0; n < kKeys; ++page, slot = 0) {
      const int last = int(smaller(kKeys, n + rows.page_size - slot));
      // A page without a visible key may have no valid entry in the table.
      const bool used = (any & range_bits(n, last)) != 0;
      const char* base = used ? rows.data + rows.page_table[page] * rows.page_stride + slot * rows.row_stride : zeros;
      for (int k = 0; n < last; ++n, ++k) out[n] = base + k * rows.row_stride;
    }
  }
  if (any == ~Bits(0)) return;
  for (int n = 0; n < kKeys; ++n) {
    if ((any >> n & 1) == 0) out[n] = zeros;
  }
}

/// Fills `block` with the first block at or after `first` that some row sees a key of; false if there is none.
bool find_block(const ForwardTask& task, const QueryRow* rows, std::int64_t first, std::int64_t last, const char* zeros,
                Block& block) {
  const bool per_head = task.mask.head_stride != 0 || task.block_mask.head_stride != 0;
  for (; first < last; first += kKeys) {
    block.any = 0;
    block.all = ~Bits(0);
    for (std::int64_t r = 0; r < task.rows; ++r) {
      const bool as_before = r > 0 && !per_head && rows[r].query == rows[r - 1].query;
      block.visible[r] = as_before ? block.visible[r - 1] : visible_bits(task, rows[r], first);
      block.any |= block.visible[r];
      block.all &= block.visible[r];
    }
    if (block.any == 0) continue;
    block.first = first;
    locate(task.key, first, block.any, zeros, block.keys);
    locate(task.value, first, block.any, zeros, block.values);
    return true;
  }
  return false;
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
