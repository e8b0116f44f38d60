// What happens to scores between S = Q K^T and the softmax: scale, softcap, bias, ALiBi, and -inf for what is hidden
// (SPEC: "Scores"). One place for all kernels; registers are laid out as mma leaves them.
#pragma once

#include "cuda/device/visibility.cuh"

namespace strobe::cuda {

/// tanh x as 1 - 2 / (e^2x + 1): absolute error of a few float32 roundings, exact limits.
STROBE_DEVICE float tanh_of(float x) { return 1.0f - 2.0f * ptx::rcp(1.0f + ptx::ex2(x * (2.0f * kLog2E))); }

/// Features that change a score or hide keys by data, so that every block must be edited, not only those at the edges.
constexpr int kEditingFeatures = kSoftcap | kBias | kAlibi | kDocuments | kMask | kBlockMask | kNegativeScale;

/// One query row of one head: what it needs to edit its scores.
struct ScoreRow {
  int i;
  KeyRange visible;  // empty for rows past the sequence's last
  float position;    // p_i
  float slope;
  int document;
  const char *bias, *mask, *block_mask;
};

template <int kFeatures>
STROBE_DEVICE ScoreRow score_row(const AttentionParams& p, const Sequence& s, int head, int i) {
  ScoreRow row{};
  row.i = i;
  row.visible = i < s.queries ? visible_keys(p, s, i) : KeyRange{0, 0};
  if constexpr ((kFeatures & kAlibi) != 0) {
    row.position = float(i + s.shift);
    if (p.alibi_slopes.data) {
      row.slope = reinterpret_cast<const float*>(
          p.alibi_slopes.data)[s.batch * p.alibi_slopes.batch_stride + head * p.alibi_slopes.stride];
    }
  }
  const int stored = smaller(i, larger(s.queries - 1, 0));  // rows that are not there read some other row's facts
  const auto row_of = [&](const ScoresView& view, int row_index) {
    return s.batch * view.batch_stride + head * view.head_stride + row_index * view.row_stride;
  };
  if constexpr ((kFeatures & kBias) != 0) {
    if (p.bias.data) row.bias = p.bias.data + row_of(p.bias, stored) * size_of(p.bias.type);
  }
  if constexpr ((kFeatures & kMask) != 0) {
    if (p.mask.data) row.mask = p.mask.data + row_of(p.mask, stored);
  }
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (p.block_mask.data) row.block_mask = p.block_mask.data + row_of(p.block_mask, stored / p.block_rows);
  }
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (p.query_documents.data) {
      const i64 b =
          p.packed_queries ? s.first_query * p.query_documents.stride : s.batch * p.query_documents.batch_stride;
      row.document = reinterpret_cast<const int*>(p.query_documents.data)[b + stored * p.query_documents.stride];
    }
  }
  return row;
}

/// The document of key j.
STROBE_DEVICE int key_document(const AttentionParams& p, const Sequence& s, int j) {
  const i64 b = p.packed_keys ? s.first_key * p.key_documents.stride : s.batch * p.key_documents.batch_stride;
  return reinterpret_cast<const int*>(p.key_documents.data)[b + j * p.key_documents.stride];
}

/// Whether data (documents, mask, block mask) leave key j visible to the row. j must be a key in use.
template <int kFeatures>
STROBE_DEVICE bool data_shows(const AttentionParams& p, const Sequence& s, const ScoreRow& row, int j) {
  if constexpr ((kFeatures & kDocuments) != 0) {
    if (p.query_documents.data && key_document(p, s, j) != row.document) return false;
  }
  if constexpr ((kFeatures & kMask) != 0) {
    if (row.mask && !row.mask[j * p.mask.column_stride]) return false;
  }
  if constexpr ((kFeatures & kBlockMask) != 0) {
    if (row.block_mask && !row.block_mask[j / p.block_columns * p.block_mask.column_stride]) return false;
  }
  return true;
}

/// The score of key j after scale, softcap, bias and ALiBi. `x` is the product of query and key. Where a derivative of
/// the softcap is wanted, `capped` receives tanh.
template <int kFeatures>
STROBE_DEVICE float edited_score(const AttentionParams& p, const ScoreRow& row, int j, float x,
                                 float* capped = nullptr) {
  x *= p.scale;
  if constexpr ((kFeatures & kSoftcap) != 0) {
    if (p.softcap > 0.0f) {
      const float t = tanh_of(x / p.softcap);
      if (capped) *capped = t;
      x = p.softcap * t;
    }
  }
  if constexpr ((kFeatures & kBias) != 0) {
    if (row.bias) x += load_float(row.bias, p.bias.type, j * p.bias.column_stride);
  }
  if constexpr ((kFeatures & kAlibi) != 0) x -= row.slope * fabsf(row.position - float(j));
  return x;
}

/// Finishes the scores of 8 * kKeyTiles keys from `first_key` on for the two rows that a thread holds of an m16n8
/// accumulator: s[t][e] is row e / 2, key first_key + 8 t + 2 (lane % 4) + e % 2. Afterwards s is in natural units
/// where kFeatures edit scores, and the bare product elsewhere; hidden keys are -inf.
template <int kFeatures, int kKeyTiles>
STROBE_DEVICE void finish_scores(const AttentionParams& p, const Sequence& s, int prefix, const ScoreRow (&rows)[2],
                                 int first_key, float (&scores)[kKeyTiles][4]) {
  constexpr bool kEdits = (kFeatures & kEditingFeatures) != 0;
#pragma unroll
  for (int t = 0; t < kKeyTiles; ++t) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const ScoreRow& row = rows[e / 2];
      const int j = first_key + 8 * t + 2 * (lane_index() % 4) + e % 2;
      bool visible = sees(row.visible, prefix, j);
      if constexpr (kEdits) {
        if (visible) {
          visible = data_shows<kFeatures>(p, s, row, j);
          scores[t][e] = edited_score<kFeatures>(p, row, j, scores[t][e]);
        }
      }
      if (!visible) scores[t][e] = minus_infinity();
    }
  }
}

}  // namespace strobe::cuda
