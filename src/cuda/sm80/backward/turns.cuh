// dQ of a tile is the sum over all key blocks that see it. Key blocks add to float32 memory, laid out as the warps hold
// dQ in registers; by default one after another, by turns: the first stores, the last one adds what is there and writes
// the gradient itself. A counter for each tile says whose turn it is. A block waits only for blocks of lower number,
// which the hardware starts earlier.
#pragma once

#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

STROBE_DEVICE int* turn_of(const BackwardParams& f, const Sequence& s, const Visit& visit) {
  return f.turns + i64(visit.head) * f.slots + query_slot(f, s, visit.tile);
}

/// One thread waits before all of the block add to dQ.
STROBE_DEVICE void await_turn(const BackwardParams& f, const Sequence& s, const Visit& visit) {
  if (visit.none() || visit.turn == 0 || f.turns == nullptr) return;
  const int* const turn = turn_of(f, s, visit);
  while (ptx::ld_acquire(turn) < visit.turn) {
  }
}

/// One thread hands on, once all of the block have added and met at a barrier.
STROBE_DEVICE void pass_turn(const BackwardParams& f, const Sequence& s, const Visit& visit) {
  if (visit.none() || visit.last || f.turns == nullptr) return;
  ptx::st_release(turn_of(f, s, visit), visit.turn + 1);
}

/// Where a part of a warp's share of a tile's dQ lies; a thread's four floats of fragment n are at n * 128 + 4 * lane.
template <class C>
STROBE_DEVICE float* sums_of(const BackwardParams& f, const Sequence& s, const Visit& visit, int part) {
  const i64 tile = i64(visit.head) * f.slots + query_slot(f, s, visit.tile);
  return f.sums + tile * (C::kQueryTile * C::kHeadDim) + warp_index() * C::kWarpFloats + part * C::kPartFloats;
}

/// Writes a part of a warp's share of dQ to the gradient.
template <class C>
STROBE_DEVICE void write_grad_query(const BackwardParams& f, const Sequence& s, const Visit& visit, int part,
                                    const typename C::GradQuery& g) {
  const AttentionParams& p = f.attention;
  const RowAddress rows = query_rows(p, f.grad_query, s, visit.head);
  const int warp = warp_index(), lane = ptx::untraced(lane_index());
  const int first_row = visit.tile * C::kQueryTile + warp / C::kGradColumns * C::kGradRows + lane / 4;
  const int first_dim = warp % C::kGradColumns * C::kGradDims + part * C::kPartDims + lane % 4 * 2;
#pragma unroll
  for (int r = 0; r < C::kGradRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 16 * r + 8 * half;
      if (row >= s.queries) continue;
      char* const to = const_cast<char*>(rows(row));
#pragma unroll
      for (int t = 0; t < C::kGradTiles; ++t) {
        store_pair<typename C::Element>(f.grad_query, to, first_dim + 8 * t, p.head_dim, g[r][t][2 * half] * p.scale,
                                        g[r][t][2 * half + 1] * p.scale);
      }
    }
  }
}

template <class C>
STROBE_DEVICE void load_sums(const float* from, typename C::GradQuery& g) {
#pragma unroll
  for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
    float(&to)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
    const float4 sum = ptx::ld_global_cg_16(from + n * 128 + 4 * lane_index());
    to[0] += sum.x, to[1] += sum.y, to[2] += sum.z, to[3] += sum.w;
  }
}

/// Adds a part of a warp's share of dQ to the sum, when the block's turn has come.
template <class C>
STROBE_DEVICE void add_grad_query(const BackwardParams& f, const Sequence& s, const Visit& visit, int part,
                                  typename C::GradQuery& g) {
  float* const sums = sums_of<C>(f, s, visit, part);
  if (f.turns != nullptr && visit.last) {
    if (visit.turn > 0) load_sums<C>(sums, g);
    write_grad_query<C>(f, s, visit, part, g);
  } else if (f.turns != nullptr && visit.turn == 0) {
#pragma unroll
    for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
      const float(&part)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
      *reinterpret_cast<float4*>(sums + n * 128 + 4 * lane_index()) = make_float4(part[0], part[1], part[2], part[3]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
      const float(&part)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
      float* const to = sums + n * 128 + 4 * lane_index();
      if constexpr (C::kArchitecture >= 90) {
        ptx::red_add_f32x4(to, part);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) ptx::red_add_f32(to + e, part[e]);
      }
    }
  }
}

}  // namespace strobe::cuda::sm80
