// The end of a tile: O / l to memory, by way of shared memory where the copy engine writes it (storer.cuh); LSE. Each
// warp works for its own rows.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"
#include "cuda/sm90/forward/softmax.cuh"

namespace strobe::cuda::sm90 {

/// A row's way from sums to results, in natural units: LSE = origin + ln sum, and what outputs are multiplied by.
struct RowEnd {
  float lse, factor;
};

STROBE_DEVICE RowEnd end_of_row(float origin, float sum) {
  const float lse = origin + kLn2 * ptx::lg2(sum), factor = ptx::rcp(sum);
  const bool empty = origin == minus_infinity();
  return {empty ? origin : lse, empty ? 0.0f : factor};
}
/// The same with a sink, which is one more term of the sum.
STROBE_DEVICE RowEnd end_of_row(float origin, float sum, float sink) {
  if (sink == minus_infinity()) return end_of_row(origin, sum);
  const float next = fmaxf(origin, sink);
  const float factor = origin == minus_infinity() ? 0.0f : ptx::ex2((origin - next) * kLog2E);
  RowEnd end = end_of_row(next, sum * factor + ptx::ex2((sink - next) * kLog2E));
  end.factor *= factor;
  return end;
}

/// A head's sink; without one, what adds nothing to a sum.
STROBE_DEVICE float sink_of(const AttentionParams& p, int head) {
  return p.sink.data ? reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride] : minus_infinity();
}

/// Rows that see no key: zero output, and the LSE of nothing or of a sink alone. A warpgroup takes part.
STROBE_DEVICE void clear_rows(const AttentionParams& p, const Sequence& s, int head, int first, int last, float lse) {
  const RowAddress output = query_rows(p, p.output, s, head);
  const int thread = int(threadIdx.x) % kWarpgroup;
  for (int row = first; row < last; ++row) {
    char* const to = const_cast<char*>(output(row));
    for (int d = thread; d < p.value_dim; d += kWarpgroup) store_float(to, p.output.type, d, 0.0f);
  }
  if (p.lse.data == nullptr) return;
  for (int row = first + thread; row < last; row += kWarpgroup) lse_at(p, s, head, row) = lse;
}

/// A thread's outputs, in pairs of neighbouring columns as its type has them. Looks for infinite and NaN values on the
/// way: at sums, not at pairs, of which ptxas 13.0 would make copies.
template <class C>
struct OutputPairs {
  using E = typename C::Element;
  const typename C::Outputs& o;
  float factors[2];
  float products[2] = {0.0f, 0.0f};  // finite, unless some value is not, or values are very large

  /// Half 0 or 1 of the thread's rows, n tiles of eight columns from the left.
  STROBE_DEVICE u32 operator()(int n, int half) {
    const float* const values = &o[n / 8][n % 8][2 * half];
    products[half] = fmaf(values[0], values[1], products[half]);
    return E::pack(values[0] * factors[half], values[1] * factors[half]);
  }
  /// Whether all outputs are finite. False may be wrong.
  STROBE_DEVICE bool all_finite() const {
    const float sum = products[0] + products[1];
    return sum - sum == 0.0f;
  }
};

/// Where a task's outputs lie: `query` is one of the sequence's, `head` counts from the task's on.
template <class C>
struct OutputAddress {
  RowAddress rows;
  i64 head_bytes;

  STROBE_DEVICE static OutputAddress of(const AttentionParams& p, const Task<C>& task) {
    return {query_rows(p, p.output, outputs_of(task), task.head), p.output.head_stride * size_of(p.output.type)};
  }
  STROBE_DEVICE char* operator()(int query, int head) const {
    char* const row = const_cast<char*>(rows(query));
    if constexpr (C::kSharesTiles) return row + head * head_bytes;
    return row;
  }
};

/// Where 16 bytes of a row are staged.
STROBE_DEVICE u32 staged_chunk(u32 stage, int row, int chunk) {
  return stage + (chunk / 8 * kWarpgroupRows + row) * kPanelRowBytes + ((chunk ^ row) & 7) * kChunkBytes;
}

/// The warp's outputs to its part of the staging area.
template <class C>
STROBE_DEVICE void stage_rows(u32 stage, OutputPairs<C>& pairs) {
  const u32 first = staged_chunk(stage, warp_index() % 4 * 16 + lane_index() % 16, lane_index() / 16);
#pragma unroll
  for (int n = 0; n < C::kValueTiles; n += 2) {
    const u32 words[4] = {pairs(n, 0), pairs(n, 1), pairs(n + 1, 0), pairs(n + 1, 1)};
    const u32 place =
        (first ^ n % 8 * kChunkBytes) + n / 8 * kWarpgroupRows * kPanelRowBytes;  // as staged_chunk has it
    ptx::stmatrix_x4(place, words);
  }
}

/// What the warp has staged to memory, where the copy engine must not write all 64 rows.
template <class C>
STROBE_DEVICE void store_staged(const ForwardParams& f, const Task<C>& task, const ConsumerRows& rows, u32 stage) {
  constexpr int kChunks = C::kPanels * 8;  // of a row
  const AttentionParams& p = f.attention;
  const auto output = OutputAddress<C>::of(p, task);
  __syncwarp();
#pragma unroll 1
  for (int n = lane_index(); n < 16 * kChunks; n += kWarpLanes) {
    const int in_tile = warp_index() % 4 * 16 + n / kChunks, chunk = n % kChunks;
    const TileRow row = tile_row<C>(f, in_tile);
    const int query = rows.first_row + row.query;
    if (query >= rows.last_row || chunk * 8 >= p.value_dim) continue;
    *reinterpret_cast<uint4*>(output(query, row.head) + chunk * kChunkBytes) =
        ptx::ld_shared_16(staged_chunk(stage, in_tile, chunk));
  }
  __syncwarp();
}

/// The warp's outputs to memory, each lane 16 bytes at a time.
template <class C>
STROBE_DEVICE void store_chunks(const ForwardParams& f, const Task<C>& task, const ConsumerRows& rows,
                                OutputPairs<C>& pairs) {
  const AttentionParams& p = f.attention;
  const auto output = OutputAddress<C>::of(p, task);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const TileRow row = tile_row<C>(f, warp_index() % 4 * 16 + 8 * half + lane_index() / 4);
    const int query = rows.first_row + row.query;
    char* const to = output(query, row.head);
#pragma unroll
    for (int n = 0; n < C::kValueTiles; n += 4) {
      u32 words[4];
#pragma unroll
      for (int m = 0; m < 4; ++m) words[m] = pairs(n + m, half);
      transpose_in_row(words);
      const int chunk = n + lane_index() % 4;
      if (query < rows.last_row && chunk * 8 < p.value_dim) {
        *reinterpret_cast<uint4*>(to + chunk * kChunkBytes) = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
}

/// The warp's outputs to rows of float32 in memory. Returns whether all of a thread's are finite.
template <class C>
STROBE_DEVICE bool store_floats(const ForwardParams& f, const Task<C>& task, const ConsumerRows& rows,
                                const float (&factors)[2], const typename C::Outputs& o) {
  const AttentionParams& p = f.attention;
  const auto output = OutputAddress<C>::of(p, task);
  float nothing = 0.0f;  // stays zero, unless some value is not finite
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const TileRow row = tile_row<C>(f, warp_index() % 4 * 16 + 8 * half + lane_index() / 4);
    const int query = rows.first_row + row.query;
    float* const to = reinterpret_cast<float*>(output(query, row.head));
#pragma unroll
    for (int n = 0; n < C::kValueTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = 8 * n + 2 * (lane_index() % 4) + e;
        const float value = o[n / 8][n % 8][2 * half + e] * factors[half];
        nothing = fmaf(value, 0.0f, nothing);
        if (query < rows.last_row && d < p.value_dim) to[d] = value;
      }
    }
  }
  return nothing == 0.0f;
}

/// How a thread's two rows end.
template <class C>
STROBE_DEVICE void end_rows(const ForwardParams& f, int first_head, float unit, const Softmax<C>& softmax,
                            RowEnd (&ends)[2]) {
  const AttentionParams& p = f.attention;
  const float origins[2] = {softmax.origin[0] * (unit * kLn2), softmax.origin[1] * (unit * kLn2)};
  const float sums[2] = {sum_in_row(softmax.sum[0]), sum_in_row(softmax.sum[1])};
  const float sink = sink_of(p, first_head);
#pragma unroll
  for (int half = 0; half < 2; ++half) ends[half] = end_of_row(origins[half], sums[half]);
  if (C::kSharesTiles ? p.sink.data == nullptr : sink == minus_infinity()) [[likely]]
    return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_index() % 4 * 16 + 8 * half + lane_index() / 4, head = tile_row<C>(f, row).head;
    ends[half] = end_of_row(origins[half], sums[half], C::kSharesTiles ? sink_of(p, first_head + head) : sink);
  }
}

template <class C>
STROBE_DEVICE void write_lse(const ForwardParams& f, const ConsumerRows& rows, const RowEnd (&ends)[2]) {
  const AttentionParams& p = f.attention;
  if (rows.lse == nullptr || lane_index() % 4 != 0) return;
  const int row = warp_index() % 4 * 16 + lane_index() / 4, last = rows.last_row - rows.first_row;
  if (heads_of_tile<C>(f) > 1) [[unlikely]] {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const TileRow own = tile_row<C>(f, row + 8 * half);
      if (own.query < last) rows.lse[own.query * p.lse.row_stride + own.head * p.lse.head_stride] = ends[half].lse;
    }
    return;
  }
  float* const to = rows.lse + row * p.lse.row_stride;
  if (row < last) to[0] = ends[0].lse;
  if (row + 8 < last) to[8 * p.lse.row_stride] = ends[1].lse;
}

}  // namespace strobe::cuda::sm90
