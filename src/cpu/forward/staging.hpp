// Brings rows into the layouts that the products read: queries transposed once a tile, keys and values once a key
// block. Storage types end here: what comes out is float32 words, or bf16 pairs for the dot product.
#pragma once

#include "cpu/forward/products.hpp"
#include "cpu/forward/task.hpp"
#include "cpu/forward/tile.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

/// Calls use(T*) with `data` as a pointer to the storage type that `type` names.
template <class Use>
STROBE_INLINE void with_type(const char* data, DataType type, Use use) {
  switch (type) {
    case DataType::kFloat16:
      return use(reinterpret_cast<const Half*>(data));
    case DataType::kBFloat16:
      return use(reinterpret_cast<const BFloat16*>(data));
    case DataType::kFloat8E4M3:
      return use(reinterpret_cast<const E4M3*>(data));
    case DataType::kFloat8E5M2:
      return use(reinterpret_cast<const E5M2*>(data));
    default:
      return use(reinterpret_cast<const float*>(data));
  }
}

STROBE_INLINE const char* row_address(const KeyRows& rows, std::int64_t j) {
  if (rows.page_table == nullptr) return rows.data + j * rows.row_stride;
  return rows.data + rows.page_table[j / rows.page_size] * rows.page_stride + j % rows.page_size * rows.row_stride;
}

STROBE_INLINE const char* query_row(const ForwardTask& task, const Tile& tile, int lane) {
  return task.query + tile.query_index[lane] * task.query_row_stride + tile.head[lane] * task.query_head_stride;
}

/// Elements [d, dim) of a row, at most a vector of them, zero past the end.
template <class T>
STROBE_INLINE Floats load_dims(const T* row, int d, int dim) {
  return d + kLanes <= dim ? load(row + d) : load_first(row + d, dim - d);
}

/// Elements [d, d + dims) of an output row, at most a vector of them.
STROBE_INLINE void store_dims(char* row, DataType type, int d, int dims, Floats x) {
  const auto put = [&](auto* to) {
    if (dims == kLanes) return store(to + d, x);
    store_first(to + d, x, dims);
  };
  switch (type) {
    case DataType::kFloat16:
      return put(reinterpret_cast<Half*>(row));
    case DataType::kBFloat16:
      return put(reinterpret_cast<BFloat16*>(row));
    default:
      return put(reinterpret_cast<float*>(row));
  }
}

/// query [head_dim][kTileWidth] = rows * factor.
template <class T>
void stage_query_rows(const ForwardTask& task, const Tile& tile, const T*, float factor, float* query) {
  for (int lane = 0; lane < kTileWidth; lane += kLanes) {
    for (int d = 0; d < task.head_dim; d += kLanes) {
      Floats block[kLanes];
      for (int row = 0; row < kLanes; ++row) {
        block[row] = zero();
        if (lane + row >= tile.rows) continue;
        const T* const from = reinterpret_cast<const T*>(query_row(task, tile, lane + row));
        block[row] = mul(load_dims(from, d, task.head_dim), broadcast(factor));
      }
      transpose(block);
      const int dims = d + kLanes <= task.head_dim ? kLanes : task.head_dim - d;
      for (int i = 0; i < dims; ++i) store(query + (d + i) * kTileWidth + lane, block[i]);
    }
  }
}

inline void stage_query(const ForwardTask& task, const Tile& tile, float factor, float* query) {
  with_type(task.query, task.query_type, [&](const auto* type) { stage_query_rows(task, tile, type, factor, query); });
}

/// Copies one key row of `dim` elements to a row of words.
template <class T>
STROBE_INLINE void stage_key_row(const T* row, int dim, float* to) {
  int d = 0;
  for (; d + kLanes <= dim; d += kLanes) store(to + d, load(row + d));
  if (d < dim) store_first(to + d, load_first(row + d, dim - d), dim - d);
}

/// Copies one value row into [dims / kTileRows][kKeyBlock][kTileRows], padded with zeros.
template <class T>
STROBE_INLINE void stage_value_row(const T* row, int dim, int key, float* to) {
  int d = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    for (; d + kTileRows <= dim; d += kTileRows) {
      __builtin_memcpy(to + (d * kKeyBlock + key * kTileRows), row + d, sizeof(float) * kTileRows);
    }
  }
  for (; d < dim; d += kLanes) {
    float lanes[kLanes];
    store(lanes, load_dims(row, d, dim));
#pragma GCC unroll 4
    for (int part = 0; part < kLanes; part += kTileRows) {
      if (d + part >= dim) break;
      __builtin_memcpy(to + ((d + part) * kKeyBlock + key * kTileRows), lanes + part, sizeof(float) * kTileRows);
    }
  }
}

constexpr std::int64_t kLine = 64;  // bytes of a cache line

STROBE_INLINE std::int64_t element_bytes(DataType type) {
  return type == DataType::kFloat32 ? 4 : type >= DataType::kFloat8E4M3 ? 1 : 2;
}

/// Asks for a piece of memory ahead of its use.
STROBE_INLINE void prefetch(const char* from, std::int64_t bytes) {
  for (std::int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(from + byte, 0, 2);
}

/// Keys that tasks which stage for themselves ask for at a time, so that their pages are looked up side by side.
constexpr int kKeysAtOnce = 8;

/// Query and output rows to be brought into the cache while products run, a few at a time: a core waits for no more
/// than about 16 lines at once, so that all in one go would take as long as reading them.
class RowsAhead {
 public:
  void clear() { count_ = 0; }
  void add(const char* at, std::int64_t bytes) { rows_[count_++] = {at, bytes}; }
  /// Shares out what was added over `steps` calls of ask(). Pages are looked up here, all together, by reading a byte
  /// of each: between products each look-up would hold these up.
  void begin(int steps) {
    for (int i = 0; i < count_; ++i) static_cast<void>(*static_cast<const volatile char*>(rows_[i].at));
    share_ = steps > 0 ? (count_ + steps - 1) / steps : 0;
  }
  void ask() {
    for (int i = 0; i < share_ && count_ > 0; ++i) {
      --count_;
      prefetch(rows_[count_].at, rows_[count_].bytes);
    }
  }

 private:
  struct Row {
    const char* at;
    std::int64_t bytes;
  };
  Row rows_[2 * kTileWidth];
  int count_ = 0, share_ = 0;
};

/// Asks for one row of the keys and values, or its share of a packed block, ahead of its use.
STROBE_INLINE void prefetch_row(const ForwardTask& task, std::int64_t j) {
  if (task.packed != nullptr) {
    const std::int64_t bytes = task.packed_stride / kKeyBlock;
    return prefetch(task.packed + j * bytes, bytes);
  }
  const std::int64_t element = element_bytes(task.key_type);
  prefetch(row_address(task.key, j), task.head_dim * element);
  prefetch(row_address(task.value, j), task.value_dim * element);
}

/// Asks for rows that are staged next, all at once: staging spends most of its time waiting for memory.
STROBE_INLINE void prefetch_rows(const ForwardTask& task, std::int64_t first, std::int64_t last) {
  const std::int64_t element = element_bytes(task.key_type);
  for (std::int64_t j = first; j < last; ++j) {
    prefetch(row_address(task.key, j), task.head_dim * element);
    prefetch(row_address(task.value, j), task.value_dim * element);
  }
}

/// Rows [first, last) of the block that starts at key `block`; `last` is a multiple of the register tile's rows, and
/// rows past the sequence's end are zeros: their memory may hold anything.
inline void stage_block(const ForwardTask& task, int block, int first, int last, int key_stride, float* keys,
                        float* values) {
  const int end = block + last <= task.key_length ? last : int(task.key_length) - block;
  with_type(task.key.data, task.key_type, [&]<class T>(const T*) {
    for (int key = first; key < end; ++key) {
      stage_key_row(reinterpret_cast<const T*>(row_address(task.key, block + key)), task.head_dim,
                    keys + key * key_stride);
    }
    for (int key = first; key < end; ++key) {
      stage_value_row(reinterpret_cast<const T*>(row_address(task.value, block + key)), task.value_dim, key, values);
    }
  });
  const int dims = round_up(task.value_dim, kTileRows);
  for (int key = end; key < last; ++key) {
    __builtin_memset(keys + key * key_stride, 0, sizeof(float) * std::size_t(key_stride));
    for (int d = 0; d < dims; d += kTileRows) {
      __builtin_memset(values + d * kKeyBlock + key * kTileRows, 0, sizeof(float) * kTileRows);
    }
  }
}

/// Staged value (key, d).
STROBE_INLINE float staged_value(const float* values, int key, int d) {
  return values[(d / kTileRows * kKeyBlock + key) * kTileRows + d % kTileRows];
}

#if STROBE_ISA_ID >= 3
/// Elements [d, dim) of a bf16 row, at most `kCount` of them, as words in `to`, zero past the end.
template <int kCount>
STROBE_INLINE const char* pad_elements(const char* row, int d, int dim, std::uint16_t (&to)[kCount]) {
  __builtin_memset(to, 0, sizeof to);
  __builtin_memcpy(to, row + 2 * d, std::size_t(2 * (dim - d < kCount ? dim - d : kCount)));
  return reinterpret_cast<const char*>(to);
}

/// query [words][kTileWidth] = pairs of the rows as they are, or negated with a negative factor; words are whole
/// vectors.
inline void stage_query(const ForwardTask& task, const Tile& tile, float factor, std::uint32_t* query) {
  const int dim = task.head_dim;
  const Ints sign = broadcast_int(factor < 0.0f ? std::int32_t(0x80008000u) : 0);
  for (int lane = 0; lane < kTileWidth; lane += kLanes) {
    for (int d = 0; d < dim; d += 2 * kLanes) {
      Floats block[kLanes];
      for (int row = 0; row < kLanes; ++row) {
        block[row] = zero();
        if (lane + row >= tile.rows) continue;
        std::uint16_t padded[2 * kLanes];
        const char* from = query_row(task, tile, lane + row);
        from = d + 2 * kLanes <= dim ? from + 2 * d : pad_elements(from, d, dim, padded);
        block[row] = load(reinterpret_cast<const float*>(from));
      }
      transpose(block);
      for (int i = 0; i < kLanes; ++i) {
        float* const to = reinterpret_cast<float*>(query + (d / 2 + i) * kTileWidth + lane);
        store(to, block[i]);
        const Ints bits = load_ints(reinterpret_cast<const std::int32_t*>(to));
        store_ints(reinterpret_cast<std::int32_t*>(to), xor_ints(bits, sign));
      }
    }
  }
}

/// Dimensions [d, d + kLanes) of the values of two neighbouring keys of a block, as pairs; zero past the value's end,
/// and for keys from `end` on.
STROBE_INLINE Pairs value_pairs(const ForwardTask& task, int block, int key, int end, int d) {
  std::uint16_t padded[2][kLanes] = {};
  const std::uint16_t* rows[2];
  for (int i = 0; i < 2; ++i) {
    const char* const row = key + i < end ? row_address(task.value, block + key + i) : nullptr;
    const bool whole = row != nullptr && d + kLanes <= task.value_dim;
    rows[i] = whole ? reinterpret_cast<const std::uint16_t*>(row) + d : padded[i];
    if (row != nullptr && !whole) pad_elements(row, d, task.value_dim, padded[i]);
  }
  return interleave(rows[0], rows[1]);
}

#if STROBE_ISA_ID == 4
/// keys [keys / 16][words / 16][16][16]: the left factor of K Q^T in whole tiles, padded with zeros.
inline void stage_keys(const ForwardTask& task, int block, int first, int last, int end, int words,
                       std::uint32_t* keys) {
  for (int key = first; key < last; ++key) {
    std::uint32_t* const to = keys + (key / kTileEdge * words + key % kTileEdge) * kTileEdge;
    const char* const row = key < end ? row_address(task.key, block + key) : nullptr;
    for (int word = 0; word < words; word += kTileEdge) {
      std::uint16_t padded[2 * kTileEdge] = {};
      const char* from = reinterpret_cast<const char*>(padded);
      if (row != nullptr) {
        const bool whole = 2 * (word + kTileEdge) <= task.head_dim;
        from = whole ? row + 4 * word : pad_elements(row, 2 * word, task.head_dim, padded);
      }
      store(reinterpret_cast<float*>(to + word * kTileEdge), load(reinterpret_cast<const float*>(from)));
    }
  }
}

/// values [dims / 16][kKeyBlock / 32][16][16 pairs of neighbouring keys]: the left factor of V^T P^T in whole tiles.
inline void stage_values(const ForwardTask& task, int block, int first, int last, int end, std::uint32_t* values) {
  for (int key = first; key < last; key += kKeyRows) {
    for (int d = 0; d < task.value_dim; d += kTileEdge) {
      Floats rows[kTileEdge];
      for (int i = 0; i < kTileEdge; ++i) {
        rows[i] = reinterpret_cast<Floats>(value_pairs(task, block, key + 2 * i, end, d));
      }
      transpose(rows);
      float* const to = reinterpret_cast<float*>(values + (d * kKeyBlock / 2 + key / 2 * kTileEdge));
      for (int i = 0; i < kTileEdge; ++i) store(to + i * kTileEdge, rows[i]);
    }
  }
}

STROBE_INLINE std::uint32_t staged_pair(const std::uint32_t* values, int pair, int d) {
  const std::uint32_t* const tile =
      values + (d / kTileEdge * (kKeyBlock / 2) + pair / kTileEdge * kTileEdge) * kTileEdge;
  return tile[d % kTileEdge * kTileEdge + pair % kTileEdge];
}
#else
/// keys [key][words]: rows as they are, padded with zeros.
inline void stage_keys(const ForwardTask& task, int block, int first, int last, int end, int words,
                       std::uint32_t* keys) {
  for (int key = first; key < last; ++key) {
    std::uint32_t* const to = keys + key * words;
    if (key >= end || task.head_dim % 2 != 0) __builtin_memset(to, 0, sizeof *to * std::size_t(words));
    if (key < end) __builtin_memcpy(to, row_address(task.key, block + key), std::size_t(2 * task.head_dim));
  }
}

/// values [dims / kTileRows][kKeyBlock / 2][kTileRows] as pairs of neighbouring keys.
inline void stage_values(const ForwardTask& task, int block, int first, int last, int end, std::uint32_t* values) {
  for (int key = first; key < last; key += 2) {
    for (int d = 0; d < task.value_dim; d += kLanes) {
      std::uint32_t words[kLanes];
      store_pairs(words, value_pairs(task, block, key, end, d));
      for (int part = 0; part < kLanes; part += kTileRows) {
        __builtin_memcpy(values + ((d + part) * kKeyBlock / 2 + key / 2 * kTileRows), words + part,
                         sizeof *words * kTileRows);
      }
    }
  }
}

STROBE_INLINE std::uint32_t staged_pair(const std::uint32_t* values, int pair, int d) {
  return values[(d / kTileRows * (kKeyBlock / 2) + pair) * kTileRows + d % kTileRows];
}
#endif

/// The bf16 form of stage_block.
inline void stage_block(const ForwardTask& task, int block, int first, int last, int words, std::uint32_t* keys,
                        std::uint32_t* values) {
  const int end = block + last <= task.key_length ? last : int(task.key_length) - block;
  prefetch_rows(task, block + first, block + end);
  stage_keys(task, block, first, last, end, words, keys);
  stage_values(task, block, first, last, end, values);
}

STROBE_INLINE float staged_value(const std::uint32_t* values, int key, int d) {
  const std::uint32_t word = staged_pair(values, key / 2, d);
  const std::uint32_t bits = key % 2 == 0 ? word << 16 : word & 0xffff0000u;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
#endif

/// Whether every staged value of keys [first, last) is a number. A sum of pieces is one if its first piece is.
template <class Operand>
bool values_are_finite(const typename Operand::Word* values, int dims, int first, int last) {
  constexpr int kWords = kKeyBlock / Operand::kPerWord, kRows = kValueRows<Operand>;
  Floats all = zero();
  for (int d = 0; d < dims; d += kRows) {
    const auto* const from = values + d * kWords;
    Floats sum = zero();  // of its own, so that the next one need not wait for it
    for (int i = first / Operand::kPerWord * kRows; i < last / Operand::kPerWord * kRows; i += kLanes) {
      sum = Operand::multiply_add(sum, Operand::load(from + i), Operand::broadcast(0));
    }
    all = add(all, sum);
  }
  return __builtin_isfinite(STROBE_ISA::sum(all));
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
