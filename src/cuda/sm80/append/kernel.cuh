// What a call does before attention: new keys and values go into their places in the cache, keys turned by their
// positions (rotary embedding: RoFormer, arXiv 2104.09864), and queries are turned into the workspace. Memory moves,
// nothing else; rows of all three kinds share one launch.
#pragma once

#include "cuda/device/sequence.cuh"
#include "cuda/device/storage.cuh"
#include "cuda/sm80/append/params.hpp"

namespace strobe::cuda::sm80 {

/// The rows of one token: of head h at `from` + h * from_head and `to` + h * to_head.
struct TokenRows {
  const char* from;
  char* to;
  i64 from_head, to_head;  // bytes
  int position;            // that rotated rows turn by
};

/// Where new row i of sequence b comes from and goes to. False where the cache has no place for it.
STROBE_DEVICE bool find_new_row(const AppendParams& a, RowKind kind, int b, int i, TokenRows& rows) {
  const AttentionParams& p = a.attention;
  const Sequence s = sequence_of(p, b);
  rows.position = s.cached_keys + i;
  const RowsView &from = kind == kNewKeys ? a.new_key : a.new_value, &to = kind == kNewKeys ? p.key : p.value;
  const i64 bytes = size_of(from.type);
  rows.from = from.data + (b * from.batch_stride + i * from.row_stride) * bytes;
  rows.from_head = from.head_stride * bytes;
  rows.to_head = to.head_stride * bytes;
  if (rows.position >= s.keys) return false;
  rows.to = const_cast<char*>(key_rows(p, to, s, 0)(rows.position));
  return true;
}

/// The sequence that row `row` of the packed queries belongs to: the last one that begins at or before it.
STROBE_DEVICE int packed_sequence(const AttentionParams& p, i64 row) {
  int low = 0, high = p.batch - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (read_int(p.query_offsets, middle) <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// The same for the query that is number `token`. False for rows that are not in use.
STROBE_DEVICE bool find_query(const AppendParams& a, i64 token, TokenRows& rows) {
  const AttentionParams& p = a.attention;
  const int b = p.packed_queries ? packed_sequence(p, token) : int(quotient(token, p.query_length));
  const Sequence s = sequence_of(p, b);
  const int i = int(p.packed_queries ? token - s.first_query : token - i64(b) * p.query_length);
  if (i < 0 || i >= s.queries) return false;
  rows.position = a.turns_by_row ? i + s.shift : s.cached_keys;
  rows.from = query_rows(p, p.query, s, 0)(i);
  rows.to = const_cast<char*>(query_rows(p, a.rotated_query, s, 0)(i));
  rows.from_head = p.query.head_stride * size_of(p.query.type);
  rows.to_head = a.rotated_query.head_stride * size_of(a.rotated_query.type);
  return true;
}

/// Four entries of a table, which lie together and aligned.
STROBE_DEVICE void load_quad(const char* from, Element type, float* turns) {
  if (type == Element::kFloat32) {
    const float4 quad = *reinterpret_cast<const float4*>(from);
    turns[0] = quad.x, turns[1] = quad.y, turns[2] = quad.z, turns[3] = quad.w;
    return;
  }
  const uint2 quad = *reinterpret_cast<const uint2*>(from);
  const bool half = type == Element::kFloat16;
  turns[0] = half ? Float16::low(quad.x) : BFloat16::low(quad.x);
  turns[1] = half ? Float16::high(quad.x) : BFloat16::high(quad.x);
  turns[2] = half ? Float16::low(quad.y) : BFloat16::low(quad.y);
  turns[3] = half ? Float16::high(quad.y) : BFloat16::high(quad.y);
}

/// kCount entries of a table's row from pair `first` on.
template <int kCount>
STROBE_DEVICE void load_turns(const AppendParams& a, const VectorView& table, int position, int first,
                              float (&turns)[kCount]) {
  const i64 row = clamped(position, 0, a.positions - 1) * table.batch_stride;
  if constexpr (kCount % 4 == 0) {
    if (a.table_vectors) {
#pragma unroll
      for (int e = 0; e < kCount; e += 4) {
        load_quad(table.data + (row + first + e) * size_of(a.table_type), a.table_type, turns + e);
      }
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < kCount; ++e) turns[e] = load_float(table.data, a.table_type, row + (first + e) * table.stride);
}

/// Pairs [first, first + kCount) of one row: (x, y) becomes (x cos - y sin, x sin + y cos). They are two stretches of
/// kCount elements: x before y where kHalves, else alternating.
template <bool kHalves, class P>
STROBE_DEVICE void turn(const char* from, char* to, int pairs, int first, const float (&cosine)[P::kCount],
                        const float (&sine)[P::kCount]) {
  constexpr int kCount = P::kCount, kBytes = int(sizeof(typename P::Word));
  const int low = (kHalves ? first : 2 * first) * kBytes;
  const int high = (kHalves ? pairs + first : 2 * first + kCount) * kBytes;
  float x[2 * kCount];
  P::load(from + low).values(x);
  P::load(from + high).values(x + kCount);
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    float &u = x[kHalves ? e : 2 * e], &v = x[kHalves ? kCount + e : 2 * e + 1];
    const float turned = u * cosine[e] - v * sine[e];
    v = u * sine[e] + v * cosine[e];
    u = turned;
  }
  P::of(x).store(to + low);
  P::of(x + kCount).store(to + high);
}

template <int kType, int kCount>
STROBE_DEVICE void move_rows(const AppendParams& a, const RowShare& share, const TokenRows& rows, int lane, int slot) {
  using P = Pack<StorageOf<kType>, kCount>;
  const int turned_steps = share.pairs / kCount;
#pragma unroll 1
  for (int step = lane; step < share.steps; step += 1 << share.lane_bits) {
    if (step >= turned_steps) {
      const i64 at = (2 * share.pairs + (step - turned_steps) * kCount) * i64(sizeof(typename P::Word));
      for (int h = slot; h < share.heads; h += 1 << share.slot_bits) {
        P::load(rows.from + h * rows.from_head + at).store(rows.to + h * rows.to_head + at);
      }
      continue;
    }
    if constexpr (sizeof(typename P::Word) > 1) {
      float cosine[kCount], sine[kCount];
      load_turns(a, a.cosine, rows.position, step * kCount, cosine);
      load_turns(a, a.sine, rows.position, step * kCount, sine);
      for (int h = slot; h < share.heads; h += 1 << share.slot_bits) {
        const char* const from = rows.from + h * rows.from_head;
        char* const to = rows.to + h * rows.to_head;
        if (a.halves) {
          turn<true, P>(from, to, share.pairs, step * kCount, cosine, sine);
        } else {
          turn<false, P>(from, to, share.pairs, step * kCount, cosine, sine);
        }
      }
    }
  }
}

template <int kType>
STROBE_DEVICE void append(const AppendParams& a) {
  const int block = int(blockIdx.x), thread = int(threadIdx.x);
  const RowKind kind = block >= a.shares[kQueries].first_block     ? kQueries
                       : block >= a.shares[kNewValues].first_block ? kNewValues
                                                                   : kNewKeys;
  const RowShare& share = a.shares[kind];
  const int lane = thread & ((1 << share.lane_bits) - 1);
  const int slot = thread >> share.lane_bits & ((1 << share.slot_bits) - 1);
  const int token_bits = share.lane_bits + share.slot_bits;
  const i64 token = i64(block - share.first_block) * (kAppendThreads >> token_bits) + (thread >> token_bits);
  if (token >= share.tokens) return;

  TokenRows rows;
  bool found;
  if (kind == kQueries) {
    found = find_query(a, token, rows);
  } else {
    const int b = int(quotient(token, a.attention.new_length));
    found = find_new_row(a, kind, b, int(token - i64(b) * a.attention.new_length), rows);
  }
  if (!found) return;
  if (share.vector > 1) {
    move_rows<kType, kVectorElements<kType>>(a, share, rows, lane, slot);
  } else {
    move_rows<kType, 1>(a, share, rows, lane, slot);
  }
}

}  // namespace strobe::cuda::sm80
