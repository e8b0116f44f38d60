// What happens to a tile's scores between S = Q K^T and the softmax, in the order of the definition: softcap, bias,
// ALiBi, visibility. Scores are [keys][kTileWidth], lanes are queries; from here on in units of log2.
#pragma once

#include "cpu/forward/staging.hpp"
#include "cpu/forward/visibility.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Calls change(key, first lane of the vector, score) for each vector of scores, and stores what it returns.
template <class Change>
STROBE_INLINE void change_scores(const Visit& visit, float* scores, Change change) {
  for (int key = visit.first; key < visit.last; ++key) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      float* const at = scores + key * kTileWidth + v * kLanes;
      store(at, change(key, v * kLanes, load(at)));
    }
  }
}

/// Calls use(key, first lane, values of kLanes queries at that key) for the visited part of a [head, i, j] tensor.
template <class T, class Use>
STROBE_INLINE void for_each_column(const ForwardTask& task, const ScoreRows& rows, const Tile& tile, const Block& block,
                                   const Visit& visit, const T*, Use use) {
  const int readable = int(task.key_length) - block.first;  // columns that exist
  for (int lane = 0; lane < kTileWidth; lane += kLanes) {
    for (int key = visit.first; key < visit.last; key += kLanes) {
      Floats columns[kLanes];
      const int count = readable - key < kLanes ? readable - key : kLanes;
      for (int row = 0; row < kLanes; ++row) {
        columns[row] = zero();
        if (count <= 0) continue;
        const char* const from = score_row(task, rows, tile, lane + row) + (block.first + key) * rows.column_stride;
        if (rows.column_stride == sizeof(T)) {
          const T* const values = reinterpret_cast<const T*>(from);
          columns[row] = count == kLanes ? load(values) : load_first(values, count);
        } else {
          T values[kLanes] = {};
          for (int i = 0; i < count; ++i) values[i] = *reinterpret_cast<const T*>(from + i * rows.column_stride);
          columns[row] = load(values);
        }
      }
      transpose(columns);
      const int keys = visit.last - key < kLanes ? visit.last - key : kLanes;
      for (int i = 0; i < keys; ++i) use(key + i, lane, columns[i]);
    }
  }
}

inline void add_bias(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit, float* scores) {
  with_type(task.bias.data, task.bias.dtype, [&](const auto* type) {
    for_each_column(task, task.bias, tile, block, visit, type, [&](int key, int lane, Floats bias) {
      float* const at = scores + key * kTileWidth + lane;
      store(at, fma(bias, broadcast(kLog2E), load(at)));
    });
  });
}

inline void add_alibi(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                      float* scores) {
  Floats position[kTileVectors], slope[kTileVectors];  // positions from the block's first key on: exact in float32
  const int shift = int(task.position_shift - block.first);
  for (int v = 0; v < kTileVectors; ++v) {
    position[v] = to_floats(add_ints(load_ints(tile.query_index + v * kLanes), broadcast_int(shift)));
    slope[v] = sub(zero(), load(tile.alibi_slope + v * kLanes));
  }
  change_scores(visit, scores, [&](int key, int lane, Floats score) {
    const Floats distance = abs(sub(position[lane / kLanes], broadcast(float(key))));
    return fma(slope[lane / kLanes], distance, score);
  });
}

STROBE_INLINE Floats hidden() { return broadcast(kMinusInfinity); }

inline void hide_by_position(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                             float* scores) {
  Ints first[kTileVectors], last[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    first[v] = load_ints(tile.first + v * kLanes);
    last[v] = load_ints(tile.last + v * kLanes);
  }
  change_scores(visit, scores, [&](int key, int lane, Floats score) {
    const int j = block.first + key;
    if (j < task.prefix && j < task.key_length) return score;
    const Ints here = broadcast_int(j);
    const Mask seen = both(negate(less_ints(here, first[lane / kLanes])), less_ints(here, last[lane / kLanes]));
    return select(seen, score, hidden());
  });
}

inline void hide_by_document(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                             float* scores) {
  change_scores(visit, scores, [&](int key, int lane, Floats score) {
    const std::int64_t j = block.first + key;
    if (j >= task.key_length) return hidden();
    const Ints document = broadcast_int(task.key_documents[j * task.key_document_stride]);
    return select(equal_ints(document, load_ints(tile.document + lane)), score, hidden());
  });
}

inline void hide_by_mask(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                         float* scores) {
  for_each_column(task, task.mask, tile, block, visit, static_cast<const Byte*>(nullptr),
                  [&](int key, int lane, Floats shown) {
                    float* const at = scores + key * kTileWidth + lane;
                    store(at, select(equal(shown, zero()), hidden(), load(at)));
                  });
}

inline void hide_by_block_mask(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                               float* scores) {
  std::int64_t column = -1;
  std::int32_t kept[kTileWidth];
  change_scores(visit, scores, [&](int key, int lane, Floats score) {
    const std::int64_t j = block.first + key;
    if (j >= task.key_length) return hidden();
    if (j / task.block_columns != column) {
      column = j / task.block_columns;
      for (int row = 0; row < kTileWidth; ++row) {
        kept[row] = block_mask_row(task, tile, row)[column * task.block_mask.column_stride] != 0;
      }
    }
    return select(equal_ints(load_ints(kept + lane), broadcast_int(0)), hidden(), score);
  });
}

/// Whether scores are more than scale * dot(q, k).
STROBE_INLINE bool changes_scores(const ForwardTask& task, const Visit& visit) {
  return visit.hides || task.softcap > 0.0f || task.bias.data != nullptr || task.alibi_slopes != nullptr;
}

/// `factor` takes the products to scale * dot(q, k) in units of log2, or of the softcap where there is one. Returns
/// each lane's maximum in `largest`.
inline void finish_scores(const ForwardTask& task, const Tile& tile, const Block& block, const Visit& visit,
                          float factor, float* scores, Floats (&largest)[kTileVectors]) {
  if (task.softcap > 0.0f) {
    const Floats cap = broadcast(task.softcap * kLog2E), inner = broadcast(factor);
    change_scores(visit, scores, [&](int, int, Floats score) { return mul(cap, tanh(mul(score, inner))); });
  } else if (factor != 1.0f) {
    const Floats unit = broadcast(factor);
    change_scores(visit, scores, [&](int, int, Floats score) { return mul(score, unit); });
  }
  if (task.bias.data != nullptr) add_bias(task, tile, block, visit, scores);
  if (task.alibi_slopes != nullptr) add_alibi(task, tile, block, visit, scores);
  if (visit.by_position) hide_by_position(task, tile, block, visit, scores);
  if (visit.by_document) hide_by_document(task, tile, block, visit, scores);
  if (visit.by_block_mask) hide_by_block_mask(task, tile, block, visit, scores);
  if (task.mask.data != nullptr) hide_by_mask(task, tile, block, visit, scores);
  for (int v = 0; v < kTileVectors; ++v) {
    Floats even = hidden(), odd = hidden();
    for (int key = visit.first; key < visit.last; key += 2) {
      even = max(load(scores + key * kTileWidth + v * kLanes), even);
      odd = max(load(scores + (key + 1) * kTileWidth + v * kLanes), odd);
    }
    largest[v] = max(even, odd);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
