// Dropout's random numbers: the device form of base/philox.hpp, which defines them (Philox-4x32-10; Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include "cuda/device/ptx.cuh"
#include "cuda/params.hpp"

namespace strobe::cuda {

/// The four words of one counter. Of query i of (b, h), word j % 4 of counter (i, j / 4, stream) decides key j, where
/// stream = offset + b * query_heads + h.
STROBE_DEVICE void philox(u32 i, u32 quad, u64 stream, u64 seed, u32 (&words)[4]) {
  words[0] = i;
  words[1] = quad;
  words[2] = u32(stream);
  words[3] = u32(stream >> 32);
  u32 key0 = u32(seed), key1 = u32(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u64 product0 = ptx::mul_wide(words[0], 0xD2511F53u), product1 = ptx::mul_wide(words[2], 0xCD9E8D57u);
    words[0] = u32(product1 >> 32) ^ words[1] ^ key0;
    words[1] = u32(product1);
    words[2] = u32(product0 >> 32) ^ words[3] ^ key1;
    words[3] = u32(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/// Whether dropout keeps key j for query i.
STROBE_DEVICE bool keeps(const AttentionParams& p, u64 stream, int i, int j) {
  u32 words[4];
  philox(u32(i), u32(j / 4), stream, p.dropout_seed, words);
  const u32 draw = j % 4 < 2 ? (j % 4 == 0 ? words[0] : words[1]) : (j % 4 == 2 ? words[2] : words[3]);
  return draw >= p.dropout_threshold;
}

}  // namespace strobe::cuda
