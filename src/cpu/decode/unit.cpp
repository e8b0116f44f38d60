// The decode kernel of one instruction set: a few query rows of some KV heads against a range of their keys, online
// softmax over blocks of 64 keys (FlashAttention-2, arXiv 2307.08691, algorithm 1, with one worker's share of the keys;
// the driver merges the shares). README.md has the schedule.
#include "cpu/decode/rows.hpp"
#include "cpu/decode/scores.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

STROBE_INLINE std::int64_t rounded_up(std::int64_t count, std::int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

/// The longest vector step of any format: padded rows serve all of them.
constexpr int kPadding = 2 * kLanes;

/// Everything a task keeps besides registers. Row strides are padded dims.
struct Scratch {
  int head_dim, value_dim;  // padded
  QueryRow* rows;
  float* q;           // [rows, head_dim], or pairs in half the space
  float* o;           // [rows, value_dim]
  float* s;           // [rows, kKeys]: scores, then probabilities
  float* p;           // [rows, kKeys]: probabilities as bf16
  float* maximum;     // [rows], of base-2 scores
  float* total;       // [rows]: sum of 2^(s - maximum)
  char* zeros;        // a row of zeros, of keys or values
  char* staged_keys;  // [kKeys] rows, where stored rows do not fit the vectors
  char* staged_values;
  Block blocks[2];  // the current one and the next
  bool more[2];     // whether there is such a block, not used up
};

/// Cuts `memory` into 64-byte aligned pieces; with memory null, only counts.
struct Carver {
  char* memory;
  std::size_t used = 0;
  template <typename T>
  T* take(std::int64_t count) {
    T* piece = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += std::size_t(rounded_up(count * std::int64_t(sizeof(T)), 64));
    return piece;
  }
};

std::size_t carve(std::int64_t rows, int head_dim, int value_dim, char* memory, Scratch*& scratch) {
  Carver carver{memory};
  Scratch pieces{};
  scratch = carver.take<Scratch>(1);
  const int key_width = int(rounded_up(head_dim, kPadding)), value_width = int(rounded_up(value_dim, kPadding));
  const std::int64_t padded_rows = rounded_up(rows, kLanes);
  pieces.head_dim = key_width;
  pieces.value_dim = value_width;
  pieces.rows = carver.take<QueryRow>(rows);
  pieces.q = carver.take<float>(rows * key_width);
  pieces.o = carver.take<float>(rows * value_width);
  pieces.s = carver.take<float>(rows * kKeys);
  pieces.p = carver.take<float>(rows * kKeys);
  pieces.maximum = carver.take<float>(padded_rows);
  pieces.total = carver.take<float>(padded_rows);
  pieces.zeros = carver.take<char>(larger(key_width, value_width) * 4);
  pieces.staged_keys = carver.take<char>(kKeys * key_width * 4);
  pieces.staged_values = carver.take<char>(kKeys * value_width * 4);
  for (Block& block : pieces.blocks) block.visible = carver.take<Bits>(rows);
  if (memory != nullptr) *scratch = pieces;
  return carver.used;
}

std::size_t scratch_bytes(std::int64_t rows, int head_dim, int value_dim) {
  Scratch* none;
  return carve(rows, head_dim, value_dim, nullptr, none);
}

/// Queries of a task in the format's own form, unscaled.
template <typename Format>
void stage_queries(const ForwardTask& task, Scratch& scratch) {
  auto* q = reinterpret_cast<typename Format::Query*>(scratch.q);
  const int stride = scratch.head_dim / Format::kDims * Format::kQueryStep;
  clear(scratch.q, task.rows * scratch.head_dim);
  for (std::int64_t r = 0; r < task.rows; ++r) {
    const QueryRow& row = scratch.rows[r];
    const char* from = task.query + row.query * task.query_row_stride + row.head * task.query_head_stride;
    if constexpr (Format::kQueryStep < Format::kDims) {
      __builtin_memcpy(q + r * stride, from, std::size_t(task.head_dim) * size_of(task.query_type));
    } else {
      widen_row(from, task.query_type, task.head_dim, q + r * stride);
      for (int d = 0; d < stride; d += Format::kDims) reorder<Format, false>(q + r * stride + d);
    }
  }
}

// One block.

/// Keys [first, last) of a block, which its heads take in turn.
struct Chunk {
  int first, last;
  Bits bits;
};

/// Online softmax of a row: scores become probabilities in base 2 relative to the new maximum.
void softmax_row(Scratch& scratch, std::int64_t row) {
  float* s = scratch.s + row * kKeys;
  Floats m = load(s);
  for (int n = kLanes; n < kKeys; n += kLanes) m = max(m, load(s + n));
  const float block = largest(m), old = scratch.maximum[row];
  const float next = block > old ? block : old;
  // Nothing visible so far: any finite maximum gives zeros, and never -inf - -inf.
  const Floats finite = broadcast(next == kMinusInfinity ? 0.0f : next);
  Floats total = zero();
  for (int n = 0; n < kKeys; n += kLanes) {
    const Floats p = exp2(sub(load(s + n), finite));
    store(s + n, p);
    total = add(total, p);
  }
  if (next != old) {
    alignas(64) float lanes[kLanes];
    const Floats correction = exp2(sub(broadcast(old), finite));
    store(lanes, correction);
    scratch.total[row] *= lanes[0];
    float* o = scratch.o + row * scratch.value_dim;
    for (int d = 0; d < scratch.value_dim; d += kLanes) store(o + d, mul(load(o + d), correction));
  }
  scratch.maximum[row] = next;
  scratch.total[row] += sum(total);
}

/// Calls take.operator()<R>(r) for tiles of R rows that cover all of a task.
template <class Take>
STROBE_INLINE void for_row_tiles(std::int64_t rows, Take take) {
  std::int64_t r = 0;
  if constexpr (kMaxTileRows >= 4) {
    for (; r + 4 <= rows; r += 4) take.template operator()<4>(r);
  }
  for (; r + 2 <= rows; r += 2) take.template operator()<2>(r);
  for (; r < rows; ++r) take.template operator()<1>(r);
}

/// Keys of a chunk that any and that all of R rows see.
struct Sight {
  Bits any, all;
};
template <int R>
STROBE_INLINE Sight sight_of(const Block& block, std::int64_t r, const Chunk& chunk) {
  Sight sight{.any = 0, .all = chunk.bits};
  for (int k = 0; k < R; ++k) {
    sight.any |= block.visible[r + k] & chunk.bits;
    sight.all &= block.visible[r + k];
  }
  return sight;
}

/// S = Q K^T for a chunk of keys.
template <typename Format>
void score_chunk(const ForwardTask& task, Scratch& scratch, Block& block, const Chunk& chunk, Ahead ahead) {
  if (task.head_dim % Format::kDims != 0 || size_of(task.key_type) == 1) {
    stage_rows(task.key_type, task.head_dim, scratch.head_dim, block.any & chunk.bits, scratch.staged_keys, block.keys);
  }
  const int q_stride = scratch.head_dim / Format::kDims * Format::kQueryStep;
  const int steps = int(rounded_up(task.head_dim, Format::kDims)) / Format::kDims;
  const bool whole = (chunk.bits & ~block.all) == 0;
  for_row_tiles(task.rows, [&]<int R>(std::int64_t r) {
    constexpr int N = kLanes / R;
    const Bits seen = whole ? chunk.bits : sight_of<R>(block, r, chunk).any;
    const auto* q = reinterpret_cast<const typename Format::Query*>(scratch.q) + r * q_stride;
    for (int n = chunk.first; n < chunk.last; n += N) {
      if (!whole && (seen & range_bits(n, n + N)) == 0) continue;
      score_tile<Format, R>(q, q_stride, steps, block.keys + n, scratch.s + r * kKeys + n,
                            {ahead.rows + (n - chunk.first), ahead.bytes});
    }
    ahead.bytes = 0;
  });
}

/// Scores of a block become probabilities in the format's own form; sums and outputs so far become relative to the new
/// maximum.
template <typename Format>
void weigh_block(const ForwardTask& task, Scratch& scratch, const Block& block) {
  for (std::int64_t r = 0; r < task.rows; ++r) {
    if (block.visible[r] == 0) continue;
    float* s = scratch.s + r * kKeys;
    finish_scores(task, scratch.rows[r], block.first, block.visible[r], s);
    softmax_row(scratch, r);
    if (task.dropout) drop(task, scratch.rows[r], block.first, s);
    if constexpr (Format::kKeysPerTurn > 1) {
      auto* p = reinterpret_cast<BFloat16*>(scratch.p) + r * kKeys;
      for (int n = 0; n < kKeys; n += kLanes) store(p + n, load(s + n));
    }
  }
}

/// R rows of O += P V over the keys that some of them see.
template <typename Format, int R>
void add_rows(const ForwardTask& task, Scratch& scratch, const Block& block, const Chunk& chunk, std::int64_t r,
              Bits seen, const Ahead& ahead) {
  constexpr int kFit = kAccumulators / (R * Format::kVectors);
  constexpr int kWeights = kKeys / Format::kKeysPerTurn;
  const char* masked[kKeys];
  const char* const* values = block.values;
  if (seen != (block.any & chunk.bits)) {
    for (int n = chunk.first; n < chunk.last; ++n) masked[n] = seen >> n & 1 ? block.values[n] : scratch.zeros;
    values = masked;
  }
  const auto* weights =
      reinterpret_cast<const typename Format::Weight*>(Format::kKeysPerTurn > 1 ? scratch.p : scratch.s);
  const int first = __builtin_ctzll(seen) / 2 * 2, last = kKeys - __builtin_clzll(seen);
  const int steps = int(rounded_up(task.value_dim, Format::kDims)) / Format::kDims;
  output_tiles<Format, R, (kFit > 0 ? kFit : 1)>(weights + r * kWeights + chunk.first / Format::kKeysPerTurn,
                                                 values + chunk.first, first - chunk.first, last - chunk.first, 0,
                                                 steps, scratch.o + r * scratch.value_dim, scratch.value_dim, ahead);
}

/// O += P V for a chunk of keys.
template <typename Format>
void add_chunk(const ForwardTask& task, Scratch& scratch, Block& block, const Chunk& chunk, Ahead ahead) {
  if (task.value_dim % Format::kDims != 0 || size_of(task.key_type) == 1) {
    stage_rows(task.key_type, task.value_dim, scratch.value_dim, block.any & chunk.bits, scratch.staged_values,
               block.values);
  }
  const bool whole = (chunk.bits & ~block.all) == 0;
  for_row_tiles(task.rows, [&]<int R>(std::int64_t r) {
    const Sight sight = whole ? Sight{chunk.bits, chunk.bits} : sight_of<R>(block, r, chunk);
    if (sight.any == 0) return;
    if (sight.any == sight.all) {
      add_rows<Format, R>(task, scratch, block, chunk, r, sight.any, ahead);
    } else {
      // A value that one row sees and another does not may hold NaN, which a zero weight would not stop.
      for (int k = 0; k < R; ++k) {
        const Bits seen = block.visible[r + k] & chunk.bits;
        if (seen != 0) add_rows<Format, 1>(task, scratch, block, chunk, r + k, seen, {});
      }
    }
    ahead.bytes = 0;
  });
}

// The whole task.

/// A sink is one more key, without a value: the sums start with it.
void start_rows(const ForwardTask& task, Scratch& scratch) {
  for (std::int64_t r = 0; r < task.rows; ++r) {
    scratch.rows[r] = query_row(task, task.first_row + r);
    const float sink = task.sink == nullptr ? kMinusInfinity : task.sink[scratch.rows[r].head * task.sink_stride];
    scratch.maximum[r] = sink * kLog2E;
    scratch.total[r] = sink == kMinusInfinity ? 0.0f : 1.0f;
  }
  clear(scratch.o, task.rows * scratch.value_dim);
  clear(reinterpret_cast<float*>(scratch.zeros), larger(scratch.head_dim, scratch.value_dim));
  // Staged keys end in zeros, so that they and the queries' zeros make no NaN of what memory held.
  if (task.head_dim % kPadding != 0) clear(reinterpret_cast<float*>(scratch.staged_keys), kKeys * scratch.head_dim);
}

template <typename Format>
void finish_rows(const ForwardTask& task, Scratch& scratch) {
  for (std::int64_t r = 0; r < task.rows; ++r) {
    const QueryRow& row = scratch.rows[r];
    float* o = scratch.o + r * scratch.value_dim;
    const float total = scratch.total[r];
    const float factor = total == 0.0f ? 0.0f : task.value_scale / total;
    for (int d = 0; d < scratch.value_dim; d += kLanes) store(o + d, mul(load(o + d), broadcast(factor)));
    for (int d = 0; d < scratch.value_dim; d += Format::kDims) reorder<Format, true>(o + d);
    narrow_row(o, task.output_type, task.value_dim,
               task.output + row.query * task.output_row_stride + row.head * task.output_head_stride);
    if (task.lse == nullptr) continue;
    char* lse = task.lse + row.query * task.lse_row_stride + row.head * task.lse_head_stride;
    *reinterpret_cast<float*>(lse) = total == 0.0f ? kMinusInfinity : scratch.maximum[r] * kLn2 + __builtin_logf(total);
  }
}

/// The first key that some row may see, at the start of a block.
std::int64_t first_key(const ForwardTask& task, const Scratch& scratch) {
  std::int64_t first = task.key_length;
  for (std::int64_t r = 0; r < task.rows; ++r) {
    const QueryRow& row = scratch.rows[r];
    first = smaller(first, row.prefix.last > row.prefix.first ? row.prefix.first : row.band.first);
  }
  return larger(first, task.keys.first) / kKeys * kKeys;
}

/// Keys of a chunk: enough for the largest tile of scores that `rows` rows take, and for outputs to be worth loading.
int chunk_keys(std::int64_t rows) {
  const int tile_rows = rows % 4 == 0 && kMaxTileRows >= 4 ? 4 : rows % 2 == 0 ? 2 : 1;
  return int(larger(kLanes / tile_rows, 8));
}

/// How many keys before their use rows of `bytes` each are asked for: whole chunks, about kBytesAhead of all heads.
constexpr std::int64_t kBytesAhead = 16 << 10;
int keys_ahead(int heads, int bytes, int chunk) {
  return int(smaller(rounded_up(rounded_up(kBytesAhead, heads * bytes) / (heads * bytes), chunk), kKeys));
}

template <typename Format>
void attend(const ForwardTask* tasks, int heads, Scratch* const* scratches) {
  const auto find = [&](int head, std::int64_t first, int place) {
    const ForwardTask& task = tasks[head];
    Scratch& scratch = *scratches[head];
    scratch.more[place] = find_block(task, scratch.rows, first, smaller(task.keys.last, task.key_length), scratch.zeros,
                                     scratch.blocks[place]);
    return scratch.more[place];
  };
  bool more = false;
  for (int head = 0; head < heads; ++head) {
    start_rows(tasks[head], *scratches[head]);
    stage_queries<Format>(tasks[head], *scratches[head]);
    more |= find(head, first_key(tasks[head], *scratches[head]), 0);
  }
  const int chunk = chunk_keys(tasks[0].rows);
  const auto of_keys = [](Block& block) { return block.keys; };
  const auto of_values = [](Block& block) { return block.values; };
  for (int place = 0; more; place = 1 - place) {
    const int next = 1 - place;
    more = false;
    // take(a chunk) for each head in turn, then for the next chunk; begin(head) comes before its first one.
    const auto for_chunks = [&](int dim, auto rows_of, auto begin, auto take) {
      const int bytes = dim * int(size_of(tasks[0].key_type)), ahead = keys_ahead(heads, bytes, chunk);
      for (int n = 0; n < kKeys; n += chunk) {
        const int then = (n + ahead) % kKeys, of = n + ahead < kKeys ? place : next;
        for (int head = 0; head < heads; ++head) {
          Scratch& scratch = *scratches[head];
          if (!scratch.more[place]) continue;
          if (n == 0) begin(head);
          take(tasks[head], scratch, scratch.blocks[place], Chunk{n, n + chunk, range_bits(n, n + chunk)},
               Ahead{rows_of(scratch.blocks[of]) + then, scratch.more[of] ? bytes : 0});
        }
      }
    };
    const auto find_next = [&](int head) { more |= find(head, scratches[head]->blocks[place].first + kKeys, next); };
    const auto weigh = [&](int head) {
      weigh_block<Format>(tasks[head], *scratches[head], scratches[head]->blocks[place]);
    };
    for_chunks(tasks[0].head_dim, of_keys, find_next, score_chunk<Format>);
    for_chunks(tasks[0].value_dim, of_values, weigh, add_chunk<Format>);
    for (int head = 0; head < heads; ++head) scratches[head]->more[place] = false;
  }
  for (int head = 0; head < heads; ++head) finish_rows<Format>(tasks[head], *scratches[head]);
}

void run(const ForwardTask* tasks, int heads, void* memory) {
  Scratch* scratches[kMaxDecodeHeads];
  auto* next = static_cast<char*>(memory);
  for (int head = 0; head < heads; ++head) {
    next += carve(tasks[head].rows, tasks[head].head_dim, tasks[head].value_dim, next, scratches[head]);
  }
  switch (tasks[0].key_type) {
    case DataType::kFloat16:
      return attend<FloatFormat<Half>>(tasks, heads, scratches);
    case DataType::kBFloat16:
#if STROBE_ISA_ID == 3
      if (tasks[0].query_type == DataType::kBFloat16) return attend<DotFormat>(tasks, heads, scratches);
#endif
      return attend<SplitFormat>(tasks, heads, scratches);
    default:
      // float8 is staged as floats.
      return attend<FloatFormat<float>>(tasks, heads, scratches);
  }
}

constexpr DecodeUnit kUnit{scratch_bytes, run};

}  // namespace

const DecodeUnit& decode_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
