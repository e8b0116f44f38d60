// What happens to the scores of one tile besides the dot product: which keys are visible, bias and ALiBi (together the
// "edits" that are added to S, -inf where a key is hidden), and dropout factors. Most tiles of most problems need none.
#pragma once

#include "cpu/backward/product.hpp"
#include "cpu/backward/task.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// A block of keys and a tile of queries of one head; `padded` counts whole register tiles.
struct KeyBlock {
  std::int64_t first;
  int count, padded;
};
struct QueryTile {
  std::int64_t head, first;
  int count, padded;
};

enum class Coverage { kNothing, kEverything, kSome };

STROBE_INLINE std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
STROBE_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// The keys before `first` and from `last` on are hidden from query i by its position, except those of the prefix.
STROBE_INLINE std::int64_t first_key(const BackwardTask& task, std::int64_t i) {
  return larger(0, i + task.position_shift - task.left);
}
STROBE_INLINE std::int64_t last_key(const BackwardTask& task, std::int64_t i) {
  return smaller(task.keys, i + task.position_shift + task.right + 1);
}

STROBE_INLINE int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

/// The keys of a block that any query of the tile reaches by position, from a multiple of kPanel on.
KeyBlock reached_part(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block) {
  const std::int64_t last_query = tile.first + tile.count - 1;
  const std::int64_t begin = task.prefix > block.first ? 0 : larger(first_key(task, tile.first) - block.first, 0);
  const std::int64_t end = smaller(larger(last_key(task, last_query), task.prefix) - block.first, block.count);
  if (begin >= end) return {block.first, 0, 0};
  const int skipped = int(begin) / kPanel * kPanel, count = int(end) - skipped;
  return {block.first + skipped, count, round_up(count, kPanel)};
}

Coverage coverage_of_positions(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block) {
  const std::int64_t end = block.first + block.count, last_query = tile.first + tile.count - 1;
  if (end <= task.prefix) return Coverage::kEverything;
  if (first_key(task, last_query) <= block.first && last_key(task, tile.first) >= end) return Coverage::kEverything;
  const bool reached = first_key(task, tile.first) < end && last_key(task, last_query) > block.first;
  return reached || task.prefix > block.first ? Coverage::kSome : Coverage::kNothing;
}

/// Documents are usually laid end to end, so two ranges that do not meet are common.
Coverage coverage_of_documents(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block) {
  std::int32_t least[2], most[2];
  for (int side = 0; side < 2; ++side) {
    const std::int32_t* documents = side == 0 ? task.query_documents + tile.first * task.query_document_stride
                                              : task.key_documents + block.first * task.key_document_stride;
    const std::int64_t stride = side == 0 ? task.query_document_stride : task.key_document_stride;
    least[side] = most[side] = documents[0];
    for (int n = 1; n < (side == 0 ? tile.count : block.count); ++n) {
      const std::int32_t document = documents[n * stride];
      least[side] = document < least[side] ? document : least[side];
      most[side] = document > most[side] ? document : most[side];
    }
  }
  if (most[0] < least[1] || most[1] < least[0]) return Coverage::kNothing;
  return least[0] == most[0] && least[1] == most[1] ? Coverage::kEverything : Coverage::kSome;
}

Coverage coverage_of_blocks(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block) {
  const TaskScores& mask = task.block_mask;
  bool any_set = false, all_set = true;
  for (std::int64_t row = tile.first / task.block_rows; row <= (tile.first + tile.count - 1) / task.block_rows; ++row) {
    const char* bits = mask.data + tile.head * mask.head_stride + row * mask.row_stride;
    for (std::int64_t column = block.first / task.block_columns;
         column <= (block.first + block.count - 1) / task.block_columns; ++column) {
      const bool set = bits[column * mask.column_stride] != 0;
      any_set |= set;
      all_set &= set;
    }
  }
  return all_set ? Coverage::kEverything : any_set ? Coverage::kSome : Coverage::kNothing;
}

/// Which of the tile's scores exist, by everything that can be told without looking at single scores.
Coverage coverage_of(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block) {
  const Coverage positions = coverage_of_positions(task, tile, block);
  if (positions == Coverage::kNothing) return positions;
  bool everything = positions == Coverage::kEverything && !task.mask.data && block.count == block.padded;
  if (task.block_mask.data) {
    const Coverage blocks = coverage_of_blocks(task, tile, block);
    if (blocks == Coverage::kNothing) return blocks;
    everything &= blocks == Coverage::kEverything;
  }
  if (task.query_documents) {
    const Coverage documents = coverage_of_documents(task, tile, block);
    if (documents == Coverage::kNothing) return documents;
    everything &= documents == Coverage::kEverything;
  }
  return everything ? Coverage::kEverything : Coverage::kSome;
}

template <typename T>
STROBE_INLINE void add_bias_typed(const T* bias, std::int64_t stride, int count, float* edits) {
  if (stride == 1) {
    int j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      store(edits + j, add(load(edits + j), load(bias + j)));
    }
    if (j < count) store(edits + j, add(load(edits + j), load_first(bias + j, count - j)));
    return;
  }
  for (int j = 0; j < count; ++j) {
    T lanes[kLanes] = {bias[j * stride]};
    float values[kLanes];
    store(values, load(lanes));
    edits[j] += values[0];
  }
}

void add_bias(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, std::int64_t i, float* edits) {
  const TaskScores& bias = task.bias;
  const std::int64_t offset = tile.head * bias.head_stride + i * bias.row_stride + block.first * bias.column_stride;
  switch (bias.type) {
    case DataType::kFloat32:
      return add_bias_typed(reinterpret_cast<const float*>(bias.data) + offset, bias.column_stride, block.count, edits);
    case DataType::kFloat16:
      return add_bias_typed(reinterpret_cast<const Half*>(bias.data) + offset, bias.column_stride, block.count, edits);
    default:
      return add_bias_typed(reinterpret_cast<const BFloat16*>(bias.data) + offset, bias.column_stride, block.count,
                            edits);
  }
}

STROBE_INLINE void hide(float* edits, int begin, int end) {
  for (int j = begin; j < end; ++j) edits[j] = kMinusInfinity;
}

/// Hides the keys that position, documents and masks take from query i.
void hide_keys(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, std::int64_t i, float* edits) {
  const auto within = [&](std::int64_t key) { return int(smaller(larger(key - block.first, 0), block.count)); };
  const int prefix = within(task.prefix), first = within(first_key(task, i)), last = within(last_key(task, i));
  hide(edits, prefix, first < last ? first : block.count);
  hide(edits, last > prefix ? last : prefix, block.count);
  if (task.query_documents) {
    const std::int32_t document = task.query_documents[i * task.query_document_stride];
    const std::int32_t* documents = task.key_documents + block.first * task.key_document_stride;
    for (int j = 0; j < block.count; ++j) {
      edits[j] = documents[j * task.key_document_stride] == document ? edits[j] : kMinusInfinity;
    }
  }
  if (task.mask.data) {
    const TaskScores& mask = task.mask;
    const char* visible =
        mask.data + tile.head * mask.head_stride + i * mask.row_stride + block.first * mask.column_stride;
    for (int j = 0; j < block.count; ++j) edits[j] = visible[j * mask.column_stride] ? edits[j] : kMinusInfinity;
  }
  if (task.block_mask.data) {
    const TaskScores& mask = task.block_mask;
    const char* visible = mask.data + tile.head * mask.head_stride + i / task.block_rows * mask.row_stride;
    for (int j = 0; j < block.count;) {
      const std::int64_t column = (block.first + j) / task.block_columns;
      const int end = within((column + 1) * task.block_columns);
      if (!visible[column * mask.column_stride]) hide(edits, j, end);
      j = end;
    }
  }
  hide(edits, block.count, block.padded);
}

/// edits[row, j]: what is added to the scores of the tile; -inf hides.
void fill_edits(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, Coverage coverage,
                float* edits) {
  for (int row = 0; row < tile.padded; ++row, edits += task.layout->score_stride) {
    for (int j = 0; j < block.padded; j += kLanes) store(edits + j, zero());
    if (row >= tile.count) continue;
    const std::int64_t i = tile.first + row;
    if (task.bias.data) add_bias(task, tile, block, i, edits);
    if (task.slopes) {
      const float slope = task.slopes[tile.head * task.slope_stride];
      const float distance = float(i + task.position_shift - block.first);
      for (int j = 0; j < block.count; ++j) edits[j] -= slope * __builtin_fabsf(distance - float(j));
    }
    if (coverage == Coverage::kSome) hide_keys(task, tile, block, i, edits);
  }
}

/// factors[row, j]: 0 where dropout drops, else 1 / (1 - p). base/philox.hpp defines which.
void fill_dropout(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, float* factors) {
  const std::uint64_t stream = task.dropout_stream + std::uint64_t(tile.head);
  const Ints threshold = broadcast_int(std::int32_t(task.keep_threshold));
  std::int32_t quads[kLanes];
  for (int row = 0; row < tile.count; ++row, factors += task.layout->score_stride) {
    for (int j = 0; j < block.padded; j += 4 * kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) quads[lane] = std::int32_t((block.first + j) / 4 + lane);
      Ints draws[4] = {broadcast_int(std::int32_t(tile.first + row)), load_ints(quads),
                       broadcast_int(std::int32_t(stream)), broadcast_int(std::int32_t(stream >> 32))};
      philox(draws, task.dropout_seed);
      for (int word = 0; word < 4; ++word) {
        float kept[kLanes];
        store(kept, select(at_least_unsigned(draws[word], threshold), broadcast(task.keep_factor), zero()));
        for (int lane = 0; lane < kLanes && j + 4 * lane + word < block.padded; ++lane) {
          factors[j + 4 * lane + word] = kept[lane];
        }
      }
    }
  }
  for (int row = tile.count; row < tile.padded; ++row, factors += task.layout->score_stride) {
    for (int j = 0; j < block.padded; j += kLanes) store(factors + j, zero());
  }
}

/// Adds a tile's dS (before softcap) to the bias gradient; broadcast axes sum in the order of the loops.
void add_bias_gradient(const BackwardTask& task, const QueryTile& tile, const KeyBlock& block, const float* scores) {
  const TaskScores& bias = task.grad_bias;
  for (int row = 0; row < tile.count; ++row, scores += task.layout->score_stride) {
    float* to = reinterpret_cast<float*>(bias.data) + tile.head * bias.head_stride +
                (tile.first + row) * bias.row_stride + block.first * bias.column_stride;
    if (bias.column_stride == 0) {
      Floats total = zero();
      for (int j = 0; j < block.padded; j += kLanes) total = add(total, load(scores + j));
      *to += sum(total);
    } else {
      for (int j = 0; j < block.count; ++j) to[j * bias.column_stride] += scores[j];
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
