// Warps that share rows. Each computes the scores of its share of a block's keys and the outputs of its share of the
// dimensions, so that a fragment of K or V is read once for all rows of both. What one of the two knows and the other
// needs goes through shared memory: maxima, sums, whether weights have grown too large, and the weights themselves.
#pragma once

#include "cuda/sm80/forward/config.cuh"

namespace strobe::cuda::sm80 {

template <class C>
struct Exchange {
  static constexpr bool kPaired = C::kSharing > 1;
  u32 memory;

  STROBE_DEVICE u32 place(int warp) const { return memory + warp * C::kExchangeBytes; }
  STROBE_DEVICE u32 mine() const { return place(warp_index()); }
  STROBE_DEVICE u32 theirs() const { return place(warp_index() ^ 1); }
  STROBE_DEVICE void meet() const { ptx::bar_sync(1 + warp_index() / 2, 2 * kWarpLanes); }

  /// The other warp's values of the same rows, which all four lanes of a row have. Between two calls, the block's warps
  /// must have met.
  STROBE_DEVICE void swap_rows(const float (&mine_of)[C::kRowTiles][2], float (&their_of)[C::kRowTiles][2]) const {
    const int lane = lane_index();
    const u32 rows = C::kWeightBytes + lane / 4 * 4;
#pragma unroll
    for (int n = 0; n < 2 * C::kRowTiles; ++n) {
      if (lane % 4 == 0) ptx::st_shared_4(mine() + rows + n * 32, u32(__float_as_int(mine_of[n / 2][n % 2])));
    }
    meet();
#pragma unroll
    for (int n = 0; n < 2 * C::kRowTiles; ++n) {
      their_of[n / 2][n % 2] = __int_as_float(int(ptx::ld_shared_4(theirs() + rows + n * 32)));
    }
  }

  /// Whether `some` holds for either warp; the same for all lanes of a warp.
  STROBE_DEVICE bool either(bool some) const {
    constexpr u32 kFlag = C::kWeightBytes + C::kWarpRows * 4;
    if (lane_index() == 0) ptx::st_shared_4(mine() + kFlag, some ? 1u : 0u);
    meet();
    return some || ptx::ld_shared_4(theirs() + kFlag) != 0;
  }

  STROBE_DEVICE u32 weight_offset(int n) const { return u32((n * kWarpLanes + lane_index()) * 16); }

  STROBE_DEVICE void put(const typename C::Weights& weights) const {
#pragma unroll
    for (int n = 0; n < C::kRowTiles * C::kOwnSteps; ++n) {
      const u32(&w)[4] = weights[n / C::kOwnSteps][n % C::kOwnSteps];
      ptx::st_shared_16(mine() + weight_offset(n), make_uint4(w[0], w[1], w[2], w[3]));
    }
  }
  STROBE_DEVICE void take(typename C::Weights& weights) const {
#pragma unroll
    for (int n = 0; n < C::kRowTiles * C::kOwnSteps; ++n) {
      u32(&w)[4] = weights[n / C::kOwnSteps][n % C::kOwnSteps];
      const uint4 words = ptx::ld_shared_16(theirs() + weight_offset(n));
      w[0] = words.x, w[1] = words.y, w[2] = words.z, w[3] = words.w;
    }
  }
};

}  // namespace strobe::cuda::sm80
