// Before the backward kernel: what it must know of each query row (LSE, delta = dot(dO, O) - dLSE), its counters set to
// zero, dQ itself where no key block will write it, and each tile's share of the sink's gradient. A block takes one
// query tile of one head; warps take rows.
#pragma once

#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

constexpr int kPrepareThreads = 256, kRowLanes = 8;  // a row of O is read by so many lanes
constexpr int kRowsApart = kPrepareThreads / kRowLanes, kRowsAtOnce = 2;

/// The sum of eight products of 16-bit elements on top of `sum`.
STROBE_DEVICE float add_products(const uint4& x, const uint4& y, Element type, float sum) {
  const u32 xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    if (type == Element::kFloat16) {
      sum = fmaf(Float16::low(xs[n]), Float16::low(ys[n]), sum);
      sum = fmaf(Float16::high(xs[n]), Float16::high(ys[n]), sum);
    } else {
      sum = fmaf(BFloat16::low(xs[n]), BFloat16::low(ys[n]), sum);
      sum = fmaf(BFloat16::high(xs[n]), BFloat16::high(ys[n]), sum);
    }
  }
  return sum;
}

/// The lane's shares of dot(a, b) for rows first, first + kRowsApart, ... below `last`, in chunks of eight elements.
/// What a thread reads is on its way before any of it is looked at: memory alone sets the pace of this kernel.
STROBE_DEVICE void dot_parts(const RowsView& a, const RowAddress& a_rows, const RowsView& b, const RowAddress& b_rows,
                             int first, int last, int dims, float (&sums)[kRowsAtOnce]) {
  constexpr int kApart = 8 * kRowLanes, kChunks = 2;  // of a row at once
  const bool vectors = a.vector_bytes == 16 && b.vector_bytes == 16 && a.type == b.type && a.type != Element::kFloat32;
#pragma unroll
  for (float& sum : sums) sum = 0.0f;
  for (int start = int(threadIdx.x) % kRowLanes * 8; start < dims; start += kApart * (vectors ? kChunks : 1)) {
    if (vectors) {
      uint4 x[kRowsAtOnce][kChunks], y[kRowsAtOnce][kChunks];
#pragma unroll
      for (int n = 0; n < kRowsAtOnce; ++n) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c) {
          const int i = first + n * kRowsApart, d = start + c * kApart;
          const bool inside = i < last && d < dims;
          x[n][c] = y[n][c] = make_uint4(0, 0, 0, 0);
          if (inside) x[n][c] = *reinterpret_cast<const uint4*>(a_rows(i) + 2 * d);
          if (inside) y[n][c] = *reinterpret_cast<const uint4*>(b_rows(i) + 2 * d);
        }
      }
#pragma unroll
      for (int n = 0; n < kRowsAtOnce; ++n) {
#pragma unroll
        for (int c = 0; c < kChunks; ++c) sums[n] = add_products(x[n][c], y[n][c], a.type, sums[n]);
      }
    } else {
#pragma unroll
      for (int n = 0; n < kRowsAtOnce; ++n) {
        const int i = first + n * kRowsApart;
        if (i >= last) continue;
#pragma unroll 1
        for (int d = start; d < smaller(start + 8, dims); ++d) {
          sums[n] = fmaf(load_float(a_rows(i), a.type, d), load_float(b_rows(i), b.type, d), sums[n]);
        }
      }
    }
  }
}

STROBE_DEVICE bool row_has_suspects(const RowsView& view, const char* row, int dims) {
  bool found = false;
  for (int d = int(threadIdx.x) % kRowLanes; d < dims; d += kRowLanes) {
    found |= !(fabsf(load_float(row, view.type, d)) <= 3.4028235e38f);
  }
  return found;
}

/// Whether some key block will visit the tile and so write its dQ.
STROBE_DEVICE bool tile_is_visited(const BackwardParams& f, const Sequence& s, int head, int first_row) {
  const AttentionParams& p = f.attention;
  const TileView view = Sight(p, s).tile(first_row, f.query_tile);
  const BlockRange range = blocks_of(view, u32(f.key_block));
  if (p.block_mask.data == nullptr) return range.count() > 0;
  for (int block = 0; block < range.last || block < range.prefix; ++block) {
    const int first = block * f.key_block;
    if (range.holds(block) && block_mask_keeps(p, s, head, view, first, smaller(first + f.key_block, s.keys)))
      return true;
  }
  return false;
}

/// The sequence and tile of a slot; false if the slot is nobody's. Past the last packed sequence, b is the batch.
STROBE_DEVICE bool find_slot(const BackwardParams& f, int slot, int& b, int& tile, int& stored) {
  const AttentionParams& p = f.attention;
  stored = p.query_length;
  if (!p.packed_queries) {
    b = slot / f.tiles;
    tile = slot % f.tiles;
    return true;
  }
  const auto offset = [&](int n) { return clamped(read_int(p.query_offsets, n), 0, p.query_length); };
  int low = 0, high = p.batch;  // the last b whose first slot is not above `slot`
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offset(middle) / f.query_tile + middle <= slot) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  b = low;
  const int first = offset(b), end = b < p.batch ? larger(offset(b + 1), first) : p.query_length;
  tile = slot - (first / f.query_tile + b);
  stored = end - first;
  return tile >= 0 && tile * f.query_tile < stored;
}

/// Zeroes rows [first, last) of dQ.
STROBE_DEVICE void zero_grad_query(const BackwardParams& f, const Sequence& s, int head, int first, int last) {
  if (f.grad_query.data == nullptr) return;
  zero_rows(f.grad_query, query_rows(f.attention, f.grad_query, s, head), f.attention.head_dim, first, last);
}

STROBE_DEVICE void prepare(const BackwardParams& f) {
  __shared__ float warp_sinks[kPrepareThreads / kWarpLanes];
  const AttentionParams& p = f.attention;
  ptx::griddepcontrol_launch_dependents();
  const int slot = int(blockIdx.x), head = int(blockIdx.y);
  const i64 number = i64(head) * f.slots + slot;
  if (threadIdx.x == 0) {
    for (int part = 0; f.turns && part < f.turn_parts; ++part) f.turns[number * f.turn_parts + part] = 0;
    if (f.items_taken && number == 0) *f.items_taken = 0;
    if (f.sink_parts) f.sink_parts[number] = 0.0f;
  }
  int b, tile, stored;
  if (!find_slot(f, slot, b, tile, stored)) return;
  Sequence s{};
  if (b < p.batch) {
    s = sequence_of(p, b);
  } else {
    s.first_query = clamped(read_int(p.query_offsets, p.batch), 0, p.query_length);
  }
  const int first_row = tile * f.query_tile, end_row = smaller(first_row + f.query_tile, stored);
  if (b == p.batch) {
    zero_grad_query(f, s, head, first_row, end_row);
    return;
  }

  const RowAddress outputs = query_rows(p, p.output, s, head), grads = query_rows(p, f.grad_output, s, head);
  float* const facts = f.facts + number * f.fact_floats;
  const float sink = f.sink_parts ? reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride] : 0.0f;
  float grad_sink = 0.0f;
  bool suspicious = false;
  for (int start = int(threadIdx.x) / kRowLanes; start < f.query_tile; start += kRowsApart * kRowsAtOnce) {
    const int first = first_row + start, last = smaller(first_row + f.query_tile, s.queries);
    float lses[kRowsAtOnce], deltas[kRowsAtOnce];
#pragma unroll
    for (int n = 0; n < kRowsAtOnce; ++n) {
      lses[n] = -minus_infinity();
      if (first + n * kRowsApart < last) lses[n] = lse_at(p, s, head, first + n * kRowsApart);
    }
    dot_parts(p.output, outputs, f.grad_output, grads, first, last, p.value_dim, deltas);
#pragma unroll
    for (int n = 0; n < kRowsAtOnce; ++n) {
      const int row = start + n * kRowsApart, i = first_row + row;
      float lse = lses[n], delta = deltas[n];
#pragma unroll
      for (int lane = kRowLanes / 2; lane > 0; lane /= 2) delta += __shfl_xor_sync(~0u, delta, lane);
      if (row >= f.query_tile) continue;
      if (lse == minus_infinity()) {
        suspicious |= row_has_suspects(p.query, query_rows(p, p.query, s, head)(i), p.head_dim) ||
                      row_has_suspects(f.grad_output, grads(i), p.value_dim);
        lse = -minus_infinity();
        delta = 0.0f;
      }
      if (i < last && f.grad_lse.data && lse != -minus_infinity()) {
        const i64 batch = p.packed_queries ? 0 : b * f.grad_lse.batch_stride;
        delta -= reinterpret_cast<const float*>(
            f.grad_lse.data)[batch + head * f.grad_lse.head_stride + (s.first_query + i) * f.grad_lse.row_stride];
      }
      if (int(threadIdx.x) % kRowLanes == 0) {
        facts[row] = lse * f.lse_unit;
        facts[f.query_tile + row] = delta;
        if (f.sink_parts && lse != -minus_infinity()) grad_sink -= ptx::ex2((sink - lse) * kLog2E) * delta;
      }
    }
  }
  const bool visited = first_row < s.queries && tile_is_visited(f, s, head, first_row);
  zero_grad_query(f, s, head, visited ? smaller(larger(first_row, s.queries), end_row) : first_row, end_row);
  suspicious = __syncthreads_or(suspicious);
  // Four times, since readers take 16 bytes at a time.
  if (threadIdx.x < 4) facts[2 * f.query_tile + int(threadIdx.x)] = suspicious ? 1.0f : 0.0f;
  if (f.sink_parts == nullptr) return;
#pragma unroll
  for (int lane = kWarpLanes / 2; lane > 0; lane /= 2) grad_sink += __shfl_xor_sync(~0u, grad_sink, lane);
  if (lane_index() == 0) warp_sinks[warp_index()] = grad_sink;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float total = 0.0f;
  for (const float part : warp_sinks) total += part;
  f.sink_parts[number] = total;
}

}  // namespace strobe::cuda::sm80
