// dQ of a tile is the sum over all key blocks that see it. Key blocks add to float32 memory, laid out as the warps hold
// dQ in registers; by default one after another, by turns: the first stores, the last one adds what is there and writes
// the gradient itself. A counter for each tile says whose turn it is. A block waits only for blocks of lower number,
// which the hardware starts earlier.
#pragma once

#include "cuda/sm80/backward/rows.cuh"
#include "cuda/sm80/backward/visits.cuh"

namespace strobe::cuda::sm80 {

/// The number of a visit's tile and head; `slot` is that of the sequence's first tile.
STROBE_DEVICE int place_of(const BackwardParams& f, int slot, const Visit& visit) {
  return visit.head * f.slots + slot + visit.tile;
}

/// One thread waits before all of the block add to dQ.
STROBE_DEVICE void await_turn(const BackwardParams& f, int slot, const Visit& visit) {
  if (visit.none() || visit.turn == 0 || f.turns == nullptr) return;
  const int* const turn = f.turns + place_of(f, slot, visit);
  while (ptx::ld_acquire(turn) < visit.turn) {
  }
}

/// One thread hands on, once all of the block have added and met at a barrier.
STROBE_DEVICE void pass_turn(const BackwardParams& f, int slot, const Visit& visit, int turn_after) {
  if (visit.none() || visit.last || f.turns == nullptr) return;
  ptx::st_release(f.turns + place_of(f, slot, visit), turn_after);
}

/// Where a part of a warp's share of a tile's dQ lies, for one thread: its four floats of fragment n are at n * 128.
template <class C>
STROBE_DEVICE float* sums_of(const BackwardParams& f, int slot, const Visit& visit, int part, int thread) {
  const int in_tile = thread / kWarpLanes * C::kWarpFloats + part * C::kPartFloats + thread % kWarpLanes * 4;
  return f.sums + i64(place_of(f, slot, visit)) * (C::kQueryTile * C::kHeadDim) + in_tile;
}

/// Where a part of a warp's share lies in its tile of dQ.
template <class C>
struct Share {
  int row, dim;  // of the thread's first element

  STROBE_DEVICE Share(int part, int thread) {
    const int warp = thread / kWarpLanes, lane = thread % kWarpLanes;
    row = warp / C::kGradColumns * C::kGradRows + lane / 4;
    dim = warp % C::kGradColumns * C::kGradDims + part * C::kPartDims + lane % 4 * 2;
  }
};

/// Writes a part to the gradient from the sums in memory: for types and alignments that are not the usual ones.
template <class C>
STROBE_DEVICE void write_from_sums(const RowsView& view, RowAddress rows, int first_row, int last_row,
                                   const Share<C>& share, int dims, float scale, const float* sums) {
#pragma unroll 1
  for (int n = 0; n < C::kGradRowTiles * C::kGradTiles * 4; ++n) {
    const int e = n % 4, fragment = n / 4;
    const int row = first_row + share.row + fragment / C::kGradTiles * 16 + e / 2 * 8;
    const int d = share.dim + fragment % C::kGradTiles * 8 + e % 2;
    if (row >= last_row || d >= dims) continue;
    store_float(const_cast<char*>(rows(row)), view.type, d, sums[fragment * 128 + e] * scale);
  }
}

template <class C>
STROBE_DEVICE void store_sums(float* to, const typename C::GradQuery& g) {
#pragma unroll
  for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
    const float(&part)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
    *reinterpret_cast<float4*>(to + n * 128) = make_float4(part[0], part[1], part[2], part[3]);
  }
}

template <class C>
STROBE_DEVICE void load_sums(const float* from, typename C::GradQuery& g) {
#pragma unroll
  for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
    float(&to)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
    const float4 sum = ptx::ld_global_cg_16(from + n * 128);
    to[0] += sum.x, to[1] += sum.y, to[2] += sum.z, to[3] += sum.w;
  }
}

/// A part of a warp's share of dQ to rows of 16-bit elements, two at a time.
template <class C>
STROBE_DEVICE void write_grad_pairs(const RowAddress& rows, int first_row, int last_row, const Share<C>& share,
                                    int dims, float scale, const typename C::GradQuery& g) {
#pragma unroll
  for (int r = 0; r < C::kGradRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + share.row + 16 * r + 8 * half;
      char* const to = const_cast<char*>(rows(row)) + share.dim * 2;
      const int left = row < last_row ? dims - share.dim : 0;
#pragma unroll
      for (int t = 0; t < C::kGradTiles; ++t) {
        const u32 pair = C::Element::pack(g[r][t][2 * half] * scale, g[r][t][2 * half + 1] * scale);
        if (8 * t < left) *reinterpret_cast<u32*>(to + 16 * t) = pair;
      }
    }
  }
}

/// Writes a part of a warp's share of dQ to the gradient. `sums` is its place in memory, which nobody needs any more.
template <class C>
STROBE_DEVICE void write_grad_query(const BackwardParams& f, const Sequence& s, const Visit& visit, int part,
                                    int thread, float* sums, const typename C::GradQuery& g) {
  const AttentionParams& p = f.attention;
  const RowAddress rows = query_rows(p, f.grad_query, s, visit.head);
  const int first_row = visit.tile * C::kQueryTile;
  const Share<C> share(part, thread);
  if (C::Element::kBytes == 4 || f.grad_query.type == Element::kFloat32 || f.grad_query.vector_bytes < 4) {
    store_sums<C>(sums, g);
    write_from_sums<C>(f.grad_query, rows, first_row, s.queries, share, p.head_dim, p.scale, sums);
  } else if constexpr (C::Element::kBytes == 2) {
    write_grad_pairs<C>(rows, first_row, s.queries, share, p.head_dim, p.scale, g);
  }
}

/// Adds a part of a warp's share of dQ to the sum, when the block's turn has come.
template <class C>
STROBE_DEVICE void add_grad_query(const BackwardParams& f, const Sequence& s, int slot, const Visit& visit, int part,
                                  int thread, typename C::GradQuery& g) {
  float* const sums = sums_of<C>(f, slot, visit, part, thread);
  if (f.turns != nullptr && visit.last) {
    if (visit.turn > 0) load_sums<C>(sums, g);
    write_grad_query<C>(f, s, visit, part, thread, sums, g);
  } else if (f.turns != nullptr && visit.turn == 0) {
    store_sums<C>(sums, g);
  } else {
#pragma unroll
    for (int n = 0; n < C::kGradRowTiles * C::kGradTiles; ++n) {
      const float(&part)[4] = g[n / C::kGradTiles][n % C::kGradTiles];
      float* const to = sums + n * 128;
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
