// The end of a tile: O / l to memory by way of shared memory, in the background where the copy engine can write it;
// LSE.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"
#include "cuda/sm90/forward/softmax.cuh"

namespace strobe::cuda::sm90 {

/// A row's way from sums to results, in natural units: LSE = origin + ln sum, and what outputs are multiplied by.
struct RowEnd {
  float lse, factor;
  bool empty;
};

STROBE_DEVICE RowEnd end_of_row(float origin, float sum, float sink) {
  float factor = 1.0f;
  if (sink != minus_infinity()) {  // one more term of the sum
    const float next = fmaxf(origin, sink);
    factor = origin == minus_infinity() ? 0.0f : ptx::ex2((origin - next) * kLog2E);
    sum = sum * factor + ptx::ex2((sink - next) * kLog2E);
    origin = next;
  }
  const bool empty = origin == minus_infinity();
  return {empty ? origin : origin + kLn2 * ptx::lg2(sum), empty ? 0.0f : factor * ptx::rcp(sum), empty};
}

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

/// The warpgroup's staged outputs to memory. One thread asks the copy engine where that may write all 64 rows, or those
/// that the tensor has; otherwise each warp writes its own.
template <class C>
STROBE_DEVICE void store_staged(const ForwardParams& f, const Task<C>& task, const TileView& view, u32 stage) {
  const AttentionParams& p = f.attention;
  const bool ends_with_tensor = !p.packed_queries && p.query_lengths.data == nullptr;
  const int thread = int(threadIdx.x) % kWarpgroup;
  constexpr int kPanelBytes = C::kQueryTile * kPanelRowBytes;
  if (ends_with_tensor || view.first_row + kWarpgroupRows <= view.last_row) {
    if (thread != 0) return;
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      ptx::cp_async_bulk_tensor_store(f.output, stage + panel * kPanelBytes, panel * kPanel,
                                      task.s.first_query + view.first_row, task.head,
                                      p.packed_queries ? 0 : task.s.batch);
    }
    ptx::cp_async_bulk_commit_group();
    return;
  }
  const RowAddress output = query_rows(p, p.output, task.s, task.head);
  const int warp_row = thread / kWarpLanes * 16;
#pragma unroll 1
  for (int n = lane_index(); n < 16 * C::kPanels * 8; n += kWarpLanes) {
    const int in_tile = warp_row + n / (C::kPanels * 8), chunk = n % (C::kPanels * 8), row = view.first_row + in_tile;
    if (row >= view.last_row || chunk * 8 >= p.value_dim) continue;
    const u32 from =
        stage + chunk / 8 * kPanelBytes + in_tile * kPanelRowBytes + (chunk % 8 ^ in_tile & 7) * kChunkBytes;
    *reinterpret_cast<uint4*>(const_cast<char*>(output(row)) + chunk * kChunkBytes) = ptx::ld_shared_16(from);
  }
}

/// Waits until the staging area may be written: the last tile's outputs have left it.
STROBE_DEVICE void wait_for_stage(int number) {
  if (threadIdx.x % kWarpgroup == 0) ptx::cp_async_bulk_wait_group_read();
  ptx::bar_sync(1 + number, kWarpgroup);
}

/// Whether something infinite or NaN is among a thread's outputs.
template <class C>
STROBE_DEVICE bool any_not_finite(const typename C::Outputs& o) {
  float sums[4] = {};  // zero, unless there is
#pragma unroll
  for (int n = 0; n < 4 * C::kValueTiles; ++n) sums[n % 4] = fmaf(o[n / 32][n / 4 % 8][n % 4], 0.0f, sums[n % 4]);
  return !((sums[0] + sums[1]) + (sums[2] + sums[3]) == 0.0f);
}

/// The warpgroup's outputs to its part of the staging area.
template <class C>
STROBE_DEVICE void stage_rows(u32 stage, const RowEnd (&ends)[2], const typename C::Outputs& o) {
  using E = typename C::Element;
  const int lane = lane_index(), row = int(threadIdx.x) % kWarpgroup / kWarpLanes * 16 + lane % 16;
  const auto pair = [&](int panel, int j, int half) {
    const float* const values = &o[panel][j][2 * half];
    return ends[half].empty ? 0u : E::pack(values[0] * ends[half].factor, values[1] * ends[half].factor);
  };
#pragma unroll
  for (int panel = 0; panel < C::kPanels; ++panel) {
#pragma unroll
    for (int j = 0; j < kPanel / 8; j += 2) {
      const u32 words[4] = {pair(panel, j, 0), pair(panel, j, 1), pair(panel, j + 1, 0), pair(panel, j + 1, 1)};
      const int chunk = (j + lane / 16) ^ (row & 7);
      ptx::stmatrix_x4(stage + (panel * C::kQueryTile + row) * kPanelRowBytes + chunk * kChunkBytes, words);
    }
  }
}

/// The warpgroup's outputs to rows of float32 in memory.
template <class C>
STROBE_DEVICE void store_rows(const AttentionParams& p, const Task<C>& task, const TileView& view,
                              const RowEnd (&ends)[2], const typename C::Outputs& o) {
  const RowAddress output = query_rows(p, p.output, task.s, task.head);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = view.first_row + int(threadIdx.x) % kWarpgroup / kWarpLanes * 16 + 8 * half + lane_index() / 4;
    if (row >= view.last_row) continue;
    float* const to = reinterpret_cast<float*>(const_cast<char*>(output(row)));
#pragma unroll
    for (int n = 0; n < C::kValueTiles; ++n) {
      const int d = 8 * n + 2 * (lane_index() % 4);
      const float* const values = &o[n / 8][n % 8][2 * half];
      if (d < p.value_dim) to[d] = ends[half].empty ? 0.0f : values[0] * ends[half].factor;
      if (d + 1 < p.value_dim) to[d + 1] = ends[half].empty ? 0.0f : values[1] * ends[half].factor;
    }
  }
}

/// Writes what a warpgroup has for its rows, when wait_for_stage has returned. Returns whether something infinite or
/// NaN is among the outputs of any of its threads.
template <class C>
STROBE_DEVICE bool write_rows(const ForwardParams& f, const SharedMemory<C>& memory, const Task<C>& task, int number,
                              float unit, const Softmax<C>& softmax, const typename C::Outputs& o) {
  const AttentionParams& p = f.attention;
  const TileView& view = task.views[number];
  const float sink = sink_of(p, task.head);
  RowEnd ends[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float origin = softmax.origin[half];
    ends[half] =
        end_of_row(origin == minus_infinity() ? origin : origin * (unit * kLn2), sum_in_row(softmax.sum[half]), sink);
  }
  const u32 stage = memory.output() + number * kWarpgroupRows * kPanelRowBytes;
  const bool staged = p.output.type != Element::kFloat32;
  if (staged) {
    stage_rows<C>(stage, ends, o);
    ptx::fence_proxy_async();
  } else {
    store_rows<C>(p, task, view, ends, o);
  }
  const bool suspicious = ptx::bar_red_or(1 + number, kWarpgroup, any_not_finite<C>(o));
  if (staged) store_staged<C>(f, task, view, stage);
  if (p.lse.data && lane_index() % 4 == 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = view.first_row + int(threadIdx.x) % kWarpgroup / kWarpLanes * 16 + 8 * half + lane_index() / 4;
      if (row < view.last_row) lse_at(p, task.s, task.head, row) = ends[half].lse;
    }
  }
  const int last_stored = smaller(view.first_row + kWarpgroupRows, task.s.stored_queries);
  if (view.last_row < last_stored) {
    clear_rows(p, task.s, task.head, larger(view.first_row, task.s.queries), last_stored, minus_infinity());
  }
  return suspicious;
}

/// Before a block ends, its stores must have.
STROBE_DEVICE void finish_stores() {
  if (threadIdx.x % kWarpgroup == 0) ptx::cp_async_bulk_wait_group();
}

}  // namespace strobe::cuda::sm90
