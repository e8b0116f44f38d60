// What the host hands to the Hopper forward kernel. Built-in types only: read by host and kernel.
#pragma once

#include "cuda/params.hpp"

namespace strobe::cuda::sm90 {

/// Of the polynomials in x^2 that softcap is, times x, where x is not large; where it is small.
constexpr int kSoftcapTerms = 5, kFewSoftcapTerms = 3;
/// Weights less than this are of scores for which a polynomial holds, if their origin is at most its `highest`.
constexpr float kSoftcapWeights = 1024.0f;

/// softcap * tanh(x * scale / softcap) in powers of two as x * (terms[0] + terms[1] x^2 + ...), and the origins between
/// which it may be taken whatever x is.
template <int kTerms>
struct SoftcapPolynomial {
  float terms[kTerms], lowest, highest;
};

/// Query heads of a KV head that share tiles: a warpgroup's rows are those of `queries` queries, one query's `heads`
/// heads after the other's. Rows from heads * queries on are nobody's.
struct HeadSharing {
  int heads, queries;
  int tiled_heads;                     // of a sequence, those that share tiles counted as one
  unsigned heads_inverse;              // row * heads_inverse >> 16 is row / heads
  unsigned long long queries_inverse;  // n * queries_inverse >> 32 is n / queries
};

struct ForwardParams {
  TensorMap query, key, value, output;  // [dims, rows, heads, batches]; where heads share tiles, the first and the last
                                        // are [dims, heads, rows, batches]
  TensorMap bias;                       // [keys, rows, heads, batches], of which those that broadcast are one
  int bias_rows;  // of what is fetched for a consumer: kWarpgroupRows, or 1 for all; 0: it is read element by element
  AttentionParams attention;
  unsigned long long* tiles_taken;  // by thread blocks, besides their first ones; holding anything
  unsigned long long tag;           // chance does not write it
  int tiles;                        // query tiles of a sequence; packed: of all sequences, an upper bound
  int heads;  // heads, or those that share tiles as one, that have tiles of their own: splits * batch * query_heads;
              // packed: query_heads
  int splits, split_keys;  // parts of every sequence's keys, each with outputs of its own: [split, batch, ...]
  HeadGroups groups;       // heads whose tiles are taken together

  SoftcapPolynomial<kSoftcapTerms> softcap;
  SoftcapPolynomial<kFewSoftcapTerms> softcap_in_few;
  float softcap_limit;  // the former holds for |x| up to this, whatever the origin

  // Documents, in blocks of kWarpgroupRows queries and key_block keys: the smallest and the largest of each.
  int *query_documents, *key_documents;
  int query_blocks, key_blocks;  // of all sequences; of packed ones upper bounds
  int query_slots, key_slots;    // blocks of a sequence, where it is not packed
  int key_block;

  HeadSharing sharing;  // in kernels whose tiles may be shared
};

}  // namespace strobe::cuda::sm90
