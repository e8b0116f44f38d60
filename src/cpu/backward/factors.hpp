// The factors of the five products in a worker's scratch memory, as words of the operand: where they lie and how they
// get there. float32 factors are the staged rows themselves. Pairs of bf16 lie in the same places: rows of pairs along
// the head dimension where that is what a product sums over, pairs of neighbouring rows where it sums over rows.
#pragma once

#include "cpu/backward/scores.hpp"
#include "cpu/backward/staging.hpp"
#include "cpu/backward/unseen.hpp"

#if STROBE_ISA_ID == 4
#include "cpu/backward/tile_products.hpp"
#endif

namespace strobe::cpu::STROBE_ISA {
namespace {

/// A task's scratch memory, buffer by buffer (task.hpp has the shapes).
struct Scratch {
  explicit Scratch(const BackwardTask& task)
      : key(task.scratch + task.layout->key),
        key_panels(task.scratch + task.layout->key_panels),
        value_panels(task.scratch + task.layout->value_panels),
        grad_key(task.scratch + task.layout->grad_key),
        grad_value(task.scratch + task.layout->grad_value),
        query(task.scratch + task.layout->query),
        grad_query(task.scratch + task.layout->grad_query),
        grad_output(task.scratch + task.layout->grad_output),
        probabilities(task.scratch + task.layout->probabilities),
        grad_scores(task.scratch + task.layout->grad_scores),
        edits(task.scratch + task.layout->edits),
        dropout(task.scratch + task.layout->dropout),
        score_pieces(task.scratch + task.layout->score_pieces),
        lse(task.scratch + task.layout->lse),
        delta(task.scratch + task.layout->delta) {}

  float *key, *key_panels, *value_panels, *grad_key, *grad_value;
  float *query, *grad_query, *grad_output, *probabilities, *grad_scores, *edits, *dropout, *score_pieces, *lse, *delta;
};

template <class Operand>
STROBE_INLINE int words_of(int dim) {
  return (dim + Operand::kPerWord - 1) / Operand::kPerWord;
}

/// Words of a row of a panel: whole vectors.
template <class Operand>
STROBE_INLINE int panel_words(int dim) {
  return vectors_of(words_of<Operand>(dim)) * kLanes;
}

/// The same scratch, with the t-th tile of its queries first.
STROBE_INLINE Scratch from_tile(const BackwardTask& task, const Scratch& at, int t) {
  const std::ptrdiff_t rows = std::ptrdiff_t(t) * task.layout->query_tile;
  const int pieces = task.layout->pieces;
  Scratch part = at;
  part.query += rows * pieces * task.layout->head_stride;
  part.grad_query += rows * task.layout->head_stride;
  part.grad_output += rows * pieces * task.layout->value_stride;
  part.lse += rows;
  part.delta += rows;
  return part;
}

/// The same scratch, starting at a later key of the block (a multiple of kPanel).
template <class Operand>
STROBE_INLINE Scratch from_key(const BackwardTask& task, const Scratch& at, int first) {
  Scratch part = at;
  const int key_words = Operand::kPieces > 1 ? vectors_of(task.head_dim) * kLanes : task.layout->head_stride;
  part.key += Operand::kPieces * (first / Operand::kPerWord) * key_words;
  part.key_panels += Operand::kPieces * first * panel_words<Operand>(task.head_dim);
  part.value_panels += Operand::kPieces * first * panel_words<Operand>(task.value_dim);
  part.grad_key += first * (Operand::kInTiles ? 1 : task.layout->head_stride);
  part.grad_value += first * (Operand::kInTiles ? 1 : task.layout->value_stride);
  return part;
}

/// Rows of words along the head dimension, and words along the rows: [row / kPerWord][dim].
template <class Operand>
struct StagedRows {
  const typename Operand::Word *rows, *pairs;
  std::ptrdiff_t row_stride, pair_stride;
};

STROBE_INLINE StagedRows<FloatOperand> staged_rows(const float* at, int, int stride, const FloatOperand*) {
  return {at, at, stride, stride};
}
/// S or dS as left factors: read by columns (words along queries) and by rows (words along keys).
template <class Operand>
struct ScoreWords {
  const typename Operand::Word *columns, *rows;
  std::ptrdiff_t column_stride, row_stride;
};

STROBE_INLINE ScoreWords<FloatOperand> score_words(const BackwardTask& task, const QueryTile&, const KeyBlock&,
                                                   float* scores, float*, const FloatOperand*) {
  return {scores, scores, task.layout->score_stride, task.layout->score_stride};
}

/// Stages query-side rows; those whose LSE is infinite see no key and become zeros.
STROBE_INLINE void stage_tile(const TaskRows& rows, const QueryTile& tile, int dim, const float* lse, int, float* to,
                              int stride, const FloatOperand*) {
  stage_rows(rows, tile.head, tile.first, tile.count, tile.padded, dim, to, stride);
  for (int row = 0; row < tile.count; ++row) {
    if (lse[row] == __builtin_huge_valf()) clear_rows(to + row * stride, 1, dim, 0);
  }
}

/// Keys or values of a block: `rows` has them as float32 rows; panels and, where wanted, pairs of rows.
STROBE_INLINE void stage_panels(float* rows, int stride, int keys, int dim, float* panels, const FloatOperand*) {
  transpose_to_panels(rows, stride, keys, dim, panels);
}
STROBE_INLINE void stage_pairs(const BackwardTask&, const KeyBlock&, const float*, float*, const FloatOperand*) {}

/// Adds dK or dV of a block to memory.
template <class Operand>
STROBE_INLINE void add_sums(const BackwardTask&, const float* sums, int stride, int keys, int dim, const TaskRows& rows,
                            std::int64_t first, const Operand*) {
  add_rows(sums, stride, keys, dim, rows, 0, first);
}

#if STROBE_ISA_ID >= 3

/// Words of a staged row, from one to the next. On tile registers that is whole cache lines.
STROBE_INLINE int row_words(int stride) { return PairOperand::kInTiles ? stride / 2 / kLanes * kLanes : stride / 2; }

/// On tile registers `pairs` are transposed: [dim][tile / 2].
STROBE_INLINE StagedRows<PairOperand> staged_rows(const float* at, int tile, int stride, const PairOperand*) {
  const auto* const words = reinterpret_cast<const std::uint32_t*>(at);
  return {words, words + tile * row_words(stride), row_words(stride), PairOperand::kInTiles ? tile / 2 : stride};
}

/// Rounds two rows of scores to pairs of neighbouring queries at `pairs` and, where wanted, to rows of pairs of
/// neighbouring keys at `low` and `high`.
STROBE_INLINE void store_scores(Floats a, Floats b, float* pairs, std::uint16_t* low, std::uint16_t* high) {
  const Pairs both = round_both(a, b);
  store_pairs(reinterpret_cast<std::uint32_t*>(pairs), pair_both(both));
  if (low != nullptr) store_both(low, high, both);
}

/// Rounds scores [count, columns] in their own place, a pair of rows to its first row, and to rows of pairs.
STROBE_INLINE void round_scores(float* scores, float* rows, int stride, int count, int columns) {
  for (int row = 0; row < count; row += 2) {
    float* const at = scores + row * stride;
    for (int j = 0; j < columns; j += kLanes) {
      std::uint16_t *low = nullptr, *high = nullptr;
      if (rows != nullptr) {
        low = reinterpret_cast<std::uint16_t*>(rows + row * stride) + j;
        high = reinterpret_cast<std::uint16_t*>(rows + (row + 1) * stride) + j;
      }
      store_scores(load(at + j), load(at + stride + j), at + j, low, high);
    }
  }
}

/// What round_scores leaves behind.
STROBE_INLINE ScoreWords<PairOperand> rounded_scores(const BackwardTask& task, const float* scores, const float* rows) {
  const int stride = task.layout->score_stride;
  return {reinterpret_cast<const std::uint32_t*>(scores), reinterpret_cast<const std::uint32_t*>(rows), 2 * stride,
          stride};
}

STROBE_INLINE ScoreWords<PairOperand> score_words(const BackwardTask& task, const QueryTile& tile,
                                                  const KeyBlock& block, float* scores, float* rows,
                                                  const PairOperand*) {
  round_scores(scores, rows, task.layout->score_stride, tile.padded, block.padded);
  return rounded_scores(task, scores, rows);
}

STROBE_INLINE void stage_tile(const TaskRows& rows, const QueryTile& tile, int dim, const float* lse, int tile_rows,
                              float* to, int stride, const PairOperand*) {
  const auto* const from =
      reinterpret_cast<const std::uint16_t*>(rows.data) + tile.head * rows.head_stride + tile.first * rows.row_stride;
  auto* const words = reinterpret_cast<std::uint16_t*>(to);
  const int row_stride = 2 * row_words(stride);
  const int padded = PairOperand::kInTiles ? round_up(dim, 2 * kLanes) : vectors_of(dim) * kLanes;  // elements
  for (int row = 0; row < tile.padded; ++row) {
    std::uint16_t* const at = words + row * row_stride;
    const bool used = row < tile.count && lse[row] != __builtin_huge_valf();
    const int kept = used ? dim : 0;
    if (used) __builtin_memcpy(at, from + row * rows.row_stride, std::size_t(2 * dim));
    __builtin_memset(at + kept, 0, std::size_t(2 * (padded - kept)));
  }
  auto* const pairs = reinterpret_cast<std::uint32_t*>(to) + tile_rows * row_words(stride);
#if STROBE_ISA_ID == 4
  transpose_pairs(words, row_words(stride), tile.padded, dim, pairs, tile_rows / 2);
#else
  for (int row = 0; row < tile.padded; row += 2) {
    const std::uint16_t* const low = words + row * row_stride;
    for (int d = 0; d < padded; d += kLanes) {
      store_pairs(pairs + row / 2 * stride + d, interleave(low + d, low + row_stride + d));
    }
  }
#endif
}

/// Narrows the float32 rows, whose values are bf16 numbers, in their own place, and transposes the pairs.
STROBE_INLINE void stage_panels(float* rows, int stride, int keys, int dim, float* panels, const PairOperand*) {
  for (int key = 0; key < keys; ++key) {
    float* const row = rows + key * stride;
    for (int v = 0; v < vectors_of(dim); ++v) {
      store_bfloat16(reinterpret_cast<std::uint16_t*>(row) + v * kLanes, load(row + v * kLanes));
    }
    const int words = vectors_of(dim) * kLanes / 2, padded = panel_words<PairOperand>(dim);
    if (words < padded) __builtin_memset(row + words, 0, sizeof(float) * std::size_t(padded - words));
  }
  transpose_to_panels(rows, stride, keys, words_of<PairOperand>(dim), panels);
}

/// Pairs of neighbouring keys, from float32 rows.
STROBE_INLINE void stage_pairs(const BackwardTask& task, const KeyBlock& block, const float* rows, float* pairs,
                               const PairOperand*) {
  const int stride = task.layout->head_stride;
  for (int key = 0; key < block.padded; key += 2) {
    for (int v = 0; v < vectors_of(task.head_dim); ++v) {
      const float* const low = rows + key * stride + v * kLanes;
      store_pairs(reinterpret_cast<std::uint32_t*>(pairs + key / 2 * stride + v * kLanes),
                  pack_pairs(load(low), load(low + stride)));
    }
  }
}

#endif

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
