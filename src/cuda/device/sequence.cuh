// One sequence of a batch: where its rows start, how many are in use, how positions align. Every kernel that works on
// attention's tensors resolves it once. Lengths and indices come from the caller's device memory, unchecked by the
// host, so they are clamped to what is stored.
#pragma once

#include "cuda/device/tile.cuh"

namespace strobe::cuda {

struct Sequence {
  int batch;
  int first_query, first_key;  // rows before this sequence in packed tensors, else 0
  int cache_row;               // of a dense cache or the batch, else 0
  int queries, keys;           // rows in use; keys counts appended ones
  int stored_queries;          // rows that exist
  int cached_keys;             // keys before appending
  int shift;                   // p_i = i + shift
  int prefix;                  // keys before this are exempt from left and right
};

/// The same sequence, of which the compiler knows nothing (ptx::untraced): addresses that follow from it are worked out
/// where they are used, and occupy no registers elsewhere.
STROBE_DEVICE Sequence untraced(const Sequence& s) {
  Sequence copy = s;
  copy.batch = ptx::untraced(s.batch);
  copy.first_query = ptx::untraced(s.first_query);
  copy.first_key = ptx::untraced(s.first_key);
  return copy;
}

STROBE_DEVICE int read_int(const VectorView& view, int b, int n = 0) {
  return reinterpret_cast<const int*>(view.data)[b * view.batch_stride + n * view.stride];
}

STROBE_DEVICE Sequence sequence_of(const AttentionParams& p, int b) {
  Sequence s{.batch = b, .cache_row = b, .prefix = p.prefix};
  s.queries = s.stored_queries = p.query_length;
  int stored_keys = s.cached_keys = p.key_length;
  if (p.ragged) {
    if (p.packed_queries) {
      s.first_query = clamped(read_int(p.query_offsets, b), 0, p.query_length);
      s.stored_queries = clamped(read_int(p.query_offsets, b + 1), s.first_query, p.query_length) - s.first_query;
    }
    if (p.packed_keys) {
      s.first_key = clamped(read_int(p.key_offsets, b), 0, p.key_length);
      stored_keys = clamped(read_int(p.key_offsets, b + 1), s.first_key, p.key_length) - s.first_key;
    }
    if (p.packed_keys || p.page_size > 0) s.cache_row = 0;
    if (p.cache_batch_index.data) s.cache_row = clamped(read_int(p.cache_batch_index, b), 0, p.cache_rows - 1);
    s.queries = s.stored_queries;
    s.cached_keys = stored_keys;
    if (p.query_lengths.data) s.queries = clamped(read_int(p.query_lengths, b), 0, s.stored_queries);
    if (p.key_lengths.data) s.cached_keys = clamped(read_int(p.key_lengths, b), 0, stored_keys);
    if (p.prefix_lengths.data) s.prefix = larger(read_int(p.prefix_lengths, b), 0);
  }
  s.keys = smaller(s.cached_keys + p.new_length, stored_keys);
  s.shift = p.bottom_right ? s.keys - s.queries : 0;
  return s;
}

/// Which sequence, and which of its tiles of `tile_rows` rows, is number `tile` when the tiles of all packed sequences
/// are counted one after another, each sequence taking at least one. Returns false past the last one.
STROBE_DEVICE bool find_packed_tile(const VectorView& offsets, int batch, int length, int tile_rows, int& tile,
                                    int& b) {
  for (b = 0; b < batch; ++b) {
    const int first = clamped(read_int(offsets, b), 0, length);
    const int rows = clamped(read_int(offsets, b + 1), first, length) - first;
    const int tiles = larger(ceil_div(rows, tile_rows), 1);
    if (tile < tiles) return true;
    tile -= tiles;
  }
  return false;
}
STROBE_DEVICE bool find_packed_tile(const AttentionParams& p, int tile_rows, int& tile, int& b) {
  return find_packed_tile(p.query_offsets, p.batch, p.query_length, tile_rows, tile, b);
}

/// Rows of one head of a sequence's queries (or outputs, or their gradients).
STROBE_DEVICE RowAddress query_rows(const AttentionParams& p, const RowsView& view, const Sequence& s, int head) {
  const i64 first = s.first_query * view.row_stride + head * view.head_stride;
  const i64 batch = p.packed_queries ? 0 : s.batch * view.batch_stride;
  return {view.data + (batch + first) * size_of(view.type), view.row_stride * size_of(view.type)};
}

/// The LSE of query i of one head of a sequence.
STROBE_DEVICE float& lse_at(const AttentionParams& p, const Sequence& s, int head, int i) {
  const i64 batch = p.packed_queries ? 0 : s.batch * p.lse.batch_stride;
  return reinterpret_cast<float*>(
      p.lse.data)[batch + head * p.lse.head_stride + (s.first_query + i) * p.lse.row_stride];
}

/// Rows of one KV head of a sequence's keys or values, in a tensor, a dense cache or pages.
struct KeyAddress {
  const char* data;
  i64 row_bytes, page_bytes;
  const int* pages;  // null: rows lie one after another
  i64 page_stride;
  int page_size, last_page;

  STROBE_DEVICE const char* operator()(int row) const {
    if (pages == nullptr) return data + row * row_bytes;
    const int page = clamped(pages[row / page_size * page_stride], 0, last_page);
    return data + page * page_bytes + row % page_size * row_bytes;
  }
};

STROBE_DEVICE KeyAddress key_rows(const AttentionParams& p, const RowsView& view, const Sequence& s, int kv_head) {
  const int bytes = size_of(view.type);
  KeyAddress rows{};
  rows.row_bytes = view.row_stride * bytes;
  rows.data = view.data + (kv_head * view.head_stride + s.cache_row * view.batch_stride) * bytes;
  if (p.page_size > 0) {
    rows.page_bytes = view.batch_stride * bytes;
    rows.pages = reinterpret_cast<const int*>(p.page_table.data) + s.batch * p.page_table.batch_stride;
    rows.page_stride = p.page_table.stride;
    rows.page_size = p.page_size;
    rows.last_page = p.pages - 1;
  } else if (p.packed_keys) {
    rows.data += s.first_key * rows.row_bytes;
  }
  return rows;
}

/// Whether rows can be copied to tiles chunk by chunk as they are.
template <class Element>
STROBE_DEVICE bool copies_chunks(const RowsView& view) {
  return Element::kStoredBytes == Element::kBytes && view.vector_bytes == kChunkBytes;
}

STROBE_DEVICE float descale(const VectorView& factors, const Sequence& s, int kv_head) {
  if (factors.data == nullptr) return 1.0f;
  return reinterpret_cast<const float*>(factors.data)[s.batch * factors.batch_stride + kv_head * factors.stride];
}
/// What float8 scores, and values, are to be multiplied by; 1 for other types.
template <class Element>
STROBE_DEVICE float score_factor_of(const AttentionParams& p, const Sequence& s, int kv_head) {
  if constexpr (Element::kStoredBytes != 1) return 1.0f;
  return descale(p.query_descale, s, kv_head) * descale(p.key_descale, s, kv_head);
}
template <class Element>
STROBE_DEVICE float value_factor_of(const AttentionParams& p, const Sequence& s, int kv_head) {
  if constexpr (Element::kStoredBytes != 1) return 1.0f;
  return descale(p.value_descale, s, kv_head);
}

}  // namespace strobe::cuda
