// The five matrix products of the backward pass, as a warpgroup starts them: they are under way until wgmma_wait_group
// says otherwise. Tiles lie in panels of 64 columns (sm90/forward/config.cuh).
#pragma once

#include "cuda/sm90/backward/config.cuh"

namespace strobe::cuda::sm90 {

/// S^T = K Q^T and dP^T = V dO^T: 64 rows of a key tile, which begin at `left`, by rows of a query tile from `right`
/// on. Some of the steps, all by default.
template <class C, int kBegin = 0, int kEnd = C::kDim / 16>
STROBE_DEVICE void start_score_product(u32 left, u32 right, typename C::Scores& sums) {
  using Mma = ptx::Wgmma<typename C::Element, C::kScoreQueries>;
  const u64 a = descriptor_of(left, 16), b = descriptor_of(right, 16);
#pragma unroll
  for (int k = kBegin; k < kEnd; ++k) {
    const u64 from_left = moved(a, k / 4 * C::kKeyPanelBytes + k % 4 * kStepBytes);
    const u64 from_right = moved(b, k / 4 * C::kQueryPanelBytes + k % 4 * kStepBytes);
    k == 0 ? Mma::template set<0>(sums, from_left, from_right) : Mma::template add<0>(sums, from_left, from_right);
  }
}

/// dV += P^T dO or dK += dS^T Q: 64 keys in registers by panels of a query tile from `right` on.
template <class C>
STROBE_DEVICE void start_key_gradient(const typename C::Factor& left, u32 right, typename C::Sums& sums) {
  using Mma = ptx::Wgmma<typename C::Element, C::kSumColumns>;
  const u64 b = descriptor_of(right, C::kQueryPanelBytes);
#pragma unroll
  for (int k = 0; k < C::kSteps; ++k) {
    Mma::template add<1>(sums[0], left[k], moved(b, k * 16 * kPanelRowBytes));
  }
}

/// The same with 64 rows of P^T or dS^T in shared memory, which begin at `left`.
template <class C, int kBegin = 0, int kEnd = C::kSteps>
STROBE_DEVICE void start_key_gradient(u32 left, u32 right, typename C::Sums& sums) {
  using Mma = ptx::Wgmma<typename C::Element, C::kSumColumns>;
  const u64 a = descriptor_of(left, 16), b = descriptor_of(right, C::kQueryPanelBytes);
#pragma unroll
  for (int k = kBegin; k < kEnd; ++k) {
    Mma::template add<1>(sums[0], moved(a, k / 4 * C::kKeyPanelBytes + k % 4 * kStepBytes),
                         moved(b, k * 16 * kPanelRowBytes));
  }
}

/// dQ = dS K: 64 queries, from dS^T of theirs, by panels of keys from `keys` on; or dQ += dS K.
template <class C, bool kAdds = false>
STROBE_DEVICE void start_query_gradient(u32 grad_scores, u32 keys, typename C::GradQuery& sums) {
  using Mma = ptx::Wgmma<typename C::Element, C::kGradColumns>;
  const u64 a = descriptor_of(grad_scores, 16), b = descriptor_of(keys, C::kKeyPanelBytes);
#pragma unroll
  for (int k = 0; k < C::kOwnKeys / 16; ++k) {
    const int step = k * 16 * kPanelRowBytes;
    k == 0 && !kAdds ? Mma::template set<1, 1>(sums, moved(a, step), moved(b, step))
                     : Mma::template add<1, 1>(sums, moved(a, step), moved(b, step));
  }
}

}  // namespace strobe::cuda::sm90
