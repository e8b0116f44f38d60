// What consumers hold of a tile and hand on: dQ, to where it is staged or to its sums in memory, whose order is that of
// the consumers' registers; and what is known of the tile's queries.
#pragma once

#include "cuda/sm90/backward/config.cuh"

namespace strobe::cuda::sm90 {

/// A consumer's share of a tile's dQ.
template <class C>
struct GradQueryShare {
  const sm80::BackwardParams& f;
  const typename C::Visit& visit;
  int number;  // of the warpgroup, among all of the cluster

  using Element = typename C::Element;
  using Sums = typename C::GradQuery;

  /// Where the thread's four sums of fragment n lie: at n * 128.
  STROBE_DEVICE float* sums() const {
    const int warp = number * 4 + warp_index() % 4;
    return f.sums + i64(visit.place) * (C::kQueryTile * C::kDim) + warp * (C::kGradTiles * 128) + lane_index() * 4;
  }
  STROBE_DEVICE int row() const {
    return (C::kQueryTile > kWarpgroupRows ? number * kWarpgroupRows : 0) + warp_index() % 4 * 16 + lane_index() / 4;
  }
  STROBE_DEVICE int dim() const {
    return (C::kDim > C::kGradColumns ? number * C::kGradColumns : 0) + lane_index() % 4 * 2;
  }
  STROBE_DEVICE char* row_at(int row) const {
    return visit.grad_query + row * (f.grad_query.row_stride * size_of(f.grad_query.type));
  }

  /// To shared memory, as the thread's sums lie in global memory.
  STROBE_DEVICE void stage(u32 to, const Sums& g) const {
    to += ((number * 4 + warp_index() % 4) * (C::kGradTiles * 128) + lane_index() * 4) * 4;
#pragma unroll
    for (int n = 0; n < C::kGradTiles; ++n) {
      const float4 sum = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
      ptx::st_shared_16(to + n * 512, make_uint4(__float_as_int(sum.x), __float_as_int(sum.y), __float_as_int(sum.z),
                                                 __float_as_int(sum.w)));
    }
  }

  static STROBE_DEVICE void store(float* to, const Sums& g) {
#pragma unroll
    for (int n = 0; n < C::kGradTiles; ++n) {
      *reinterpret_cast<float4*>(to + n * 128) = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
    }
  }

  /// For types and alignments that are not the usual ones: from the sums in memory.
  STROBE_DEVICE void write_from_sums(const float* from) const {
    const AttentionParams& p = f.attention;
#pragma unroll 1
    for (int n = 0; n < C::kGradTiles * 4; ++n) {
      const int i = row() + n % 4 / 2 * 8, d = dim() + n / 4 * 8 + n % 2;
      if (i < visit.rows && d < p.head_dim) {
        store_float(row_at(i), f.grad_query.type, d, from[n / 4 * 128 + n % 4] * p.scale);
      }
    }
  }

  STROBE_DEVICE void write(float* sums, const Sums& g) const {
    const AttentionParams& p = f.attention;
    if (f.grad_query.type == strobe::cuda::Element::kFloat32 || f.grad_query.vector_bytes < 4) {
      store(sums, g);
      write_from_sums(sums);
      return;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = row() + 8 * half, left = i < visit.rows ? p.head_dim - dim() : 0;
      char* const to = row_at(i) + dim() * 2;
#pragma unroll
      for (int n = 0; n < C::kGradTiles; ++n) {
        const u32 pair = Element::pack(g[n][2 * half] * p.scale, g[n][2 * half + 1] * p.scale);
        if (8 * n < left) *reinterpret_cast<u32*>(to + 16 * n) = pair;
      }
    }
  }

  /// By the last block: adds what is there, and writes the gradient.
  STROBE_DEVICE void finish(Sums& g) const {
    float* const at = sums();
    if (!visit.first) {
#pragma unroll
      for (int n = 0; n < C::kGradTiles; ++n) {
        const float4 sum = ptx::ld_global_cg_16(at + n * 128);
        g[n][0] += sum.x, g[n][1] += sum.y, g[n][2] += sum.z, g[n][3] += sum.w;
      }
    }
    write(at, g);
  }
};

/// Where consumers add dQ of a tile themselves: in the order of time, up to the next tile's dQ.
enum class GivingPlace {
  kThere,               // dQ is there, half of the next tile's S^T under way
  kBesideScores,        // the other half too
  kAmongExponentials,   // half of the next tile's dP^T is under way
  kBehindExponentials,  // all of it
  kBesideGradValue,     // its dV too
  kAmongGrades,         // half of its dS^T is made
  kBesideGradKey        // its dK is under way
};

/// A thread's share of a tile's dQ where consumers add it themselves. Memory takes additions at its own pace, and who
/// asks for many at once waits; so one fragment after another is given away, in the tile after.
template <class C>
struct OwedGradQuery {
  using Sums = typename C::GradQuery;

  float* sums;        // as GradQueryShare has them
  bool owed = false;  // some fragments are
  bool stores;        // as the first block does; others add

  /// So many fragments have been given away behind a place.
  static constexpr int given_by(GivingPlace place) {
    return place == GivingPlace::kBesideGradKey ? C::kGradTiles : int(place) + 1;
  }
  static_assert(C::kGradTiles >= int(GivingPlace::kBesideGradKey) + 1);

  template <int kBegin, int kEnd>
  STROBE_DEVICE void give_fragments(const Sums& g) const {
#pragma unroll
    for (int n = kBegin; n < kEnd; ++n) {
      if (stores) {
        *reinterpret_cast<float4*>(sums + n * 128) = make_float4(g[n][0], g[n][1], g[n][2], g[n][3]);
      } else {
        ptx::red_add_f32x4(sums + n * 128, g[n]);
      }
    }
  }
  template <GivingPlace kPlace>
  STROBE_DEVICE void give(const Sums& g) const {
    constexpr int kEnd = given_by(kPlace), kBegin = int(kPlace) == 0 ? 0 : given_by(GivingPlace(int(kPlace) - 1));
    if (owed) give_fragments<kBegin, kEnd>(g);
  }
  STROBE_DEVICE void give_all(const Sums& g) const { give_fragments<0, C::kGradTiles>(g); }
};

/// What a consumer owes of dQ: nothing where it is staged.
template <class C, bool = C::kSharesKeys>
struct OwedOf {
  template <GivingPlace>
  STROBE_DEVICE void give(const typename C::GradQuery&) const {}
};
template <class C>
struct OwedOf<C, true> : OwedGradQuery<C> {};

/// LSE and delta of a thread's queries: read ahead, or where they are used.
template <class C, bool = C::kReadsAhead>
struct TileFacts {
  STROBE_DEVICE void read(u32, u32) {}
  STROBE_DEVICE float2 lse(u32 place, int t) const { return ptx::ld_shared_f32x2(place + t * 32); }
  STROBE_DEVICE float2 delta(u32 place, int t) const { return ptx::ld_shared_f32x2(place + t * 32); }
};
template <class C>
struct TileFacts<C, true> {
  float2 lses[C::kScoreTiles], deltas[C::kScoreTiles];

  STROBE_DEVICE void read(u32 lse, u32 delta) {
#pragma unroll
    for (int t = 0; t < C::kScoreTiles; ++t) {
      lses[t] = ptx::ld_shared_f32x2(lse + t * 32);
      deltas[t] = ptx::ld_shared_f32x2(delta + t * 32);
    }
  }
  STROBE_DEVICE float2 lse(u32, int t) const { return lses[t]; }
  STROBE_DEVICE float2 delta(u32, int t) const { return deltas[t]; }
};

}  // namespace strobe::cuda::sm90
