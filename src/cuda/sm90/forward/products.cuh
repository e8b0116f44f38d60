// The two matrix products of the forward pass, a warpgroup's 64 queries at a time. Both only start: they are under way
// until wgmma_wait_group says otherwise.
#pragma once

#include "cuda/sm90/forward/config.cuh"

namespace strobe::cuda::sm90 {

/// How wgmma finds a panel of 128-byte rows under the 128-byte swizzle (PTX ISA, "Matrix Descriptor Format"): groups of
/// eight rows are 1024 bytes apart, and panels along N `panel_bytes`.
STROBE_DEVICE u64 descriptor_of(u32 address, int panel_bytes) {
  constexpr u64 kSwizzle128 = 1ull << 62, kRowGroups = u64(1024 >> 4) << 32;
  return kSwizzle128 | kRowGroups | u64(panel_bytes >> 4) << 16 | (address & 0x3ffff) >> 4;
}
/// The descriptor of what lies so many bytes further. (The address is in the low half, and does not run over.)
STROBE_DEVICE u64 moved(u64 descriptor, int bytes) {
  return descriptor & 0xffffffff00000000ull | u32(descriptor) + u32(bytes >> 4);
}

constexpr int kStepBytes = 32;  // 16 columns

/// Step k of the warp's queries as a left factor in registers.
template <class C>
STROBE_DEVICE void load_query_step(u32 query, int k, u32 (&q)[4]) {
  const int lane = lane_index(), row = warp_index() % 4 * 16 + lane % 16, place = (2 * (k % 4) + lane / 16) ^ (row & 7);
  ptx::ldmatrix_x4(query + k / 4 * kWarpgroupRows * kPanelRowBytes + row * kPanelRowBytes + place * kChunkBytes, q);
}

/// Starts S = Q K^T for the warpgroup's queries.
template <class C>
STROBE_DEVICE void start_scores(u32 query, u32 keys, typename C::Scores& s) {
  using Mma = ptx::Wgmma<typename C::Element, C::kKeyBlock>;
  const u64 from_query = descriptor_of(query, 16), from_keys = descriptor_of(keys, 16);
#pragma unroll
  for (int k = 0; k < C::kDim / 16; ++k) {
    const int panel = k / 4, in_panel = k % 4 * kStepBytes;
    const u64 a = moved(from_query, panel * kWarpgroupRows * kPanelRowBytes + in_panel);
    const u64 b = moved(from_keys, panel * C::kKeyBlock * kPanelRowBytes + in_panel);
    k == 0 ? Mma::template set<0>(s, a, b) : Mma::template add<0>(s, a, b);
  }
}

/// S = Q K^T once more, by each warp on its own.
template <class C>
STROBE_DEVICE void recompute_scores(u32 query, u32 keys, typename C::Scores& s) {
  const int lane = lane_index(), key_row = lane % 8 + lane / 16 * 8, key_chunk = lane / 8 % 2;
#pragma unroll
  for (int n = 0; n < 4 * C::kKeyTiles; ++n) s[n / 4][n % 4] = 0.0f;
#pragma unroll 1
  for (int k = 0; k < C::kDim / 16; ++k) {
    u32 q[4];
    load_query_step<C>(query, k, q);
    const u32 panel = keys + k / 4 * C::kKeyBlock * kPanelRowBytes;
    const int place = (2 * (k % 4) + key_chunk) ^ (key_row & 7);
#pragma unroll
    for (int t = 0; t < C::kKeyTiles; t += 2) {
      u32 key[4];
      ptx::ldmatrix_x4(panel + (8 * t + key_row) * kPanelRowBytes + place * kChunkBytes, key);
      C::Element::mma(s[t], q, key[0], key[1]);
      C::Element::mma(s[t + 1], q, key[2], key[3]);
    }
  }
}

/// Starts O += P V.
template <class C>
STROBE_DEVICE void start_outputs(const typename C::Weights& p, u32 values, typename C::Outputs& o) {
  constexpr int kPanelBytes = C::kKeyBlock * kPanelRowBytes, kWide = C::kPanels % 2 == 0 ? 2 : 1;
  using Mma = ptx::Wgmma<typename C::Element, kWide * kPanel>;
  const u64 from_values = descriptor_of(values, kPanelBytes);
#pragma unroll
  for (int k = 0; k < C::kSteps; ++k) {
#pragma unroll
    for (int panel = 0; panel < C::kPanels; panel += kWide) {
      auto& sums = reinterpret_cast<float(&)[kWide * kPanel / 8][4]>(o[panel]);
      Mma::template add<1>(sums, p[k], moved(from_values, panel * kPanelBytes + k * 16 * kPanelRowBytes));
    }
  }
}

}  // namespace strobe::cuda::sm90
