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
  float* correction;  // [rows]: what the block's new maximum makes of older sums
  char* zeros;        // a row of zeros, of keys or values
  char* staged_keys;  // [kKeys] rows, where stored rows do not fit the vectors
  char* staged_values;
  Block blocks[2];  // the current one and the next
  bool more[2];     // whether there is such a block
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
  pieces.correction = carver.take<float>(padded_rows);
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

/// Online softmax of `rows` rows from row r on: scores become probabilities in base 2 relative to the new maximum.
void softmax_rows(Scratch& scratch, std::int64_t r, int rows) {
  for (std::int64_t row = r; row < r + rows; ++row) {
    float* s = scratch.s + row * kKeys;
    Floats m = load(s);
    for (int n = kLanes; n < kKeys; n += kLanes) m = max(m, load(s + n));
    const float block = largest(m), old = scratch.maximum[row];
    const float next = block > old ? block : old;
    // Nothing visible so far: any finite maximum gives zeros, and never -inf - -inf.
    const Floats finite = broadcast(next == kMinusInfinity ? 0.0f : next);
    alignas(64) float correction[kLanes];
    store(correction, exp2(sub(broadcast(old), finite)));
    Floats total = zero();
    for (int n = 0; n < kKeys; n += kLanes) {
      const Floats p = exp2(sub(load(s + n), finite));
      store(s + n, p);
      total = add(total, p);
    }
    scratch.maximum[row] = next;
    scratch.correction[row] = correction[0];
    scratch.total[row] = scratch.total[row] * correction[0] + sum(total);
  }
}

/// Probabilities in the format's own form.
template <typename Format>
STROBE_INLINE const typename Format::Weight* weights(Scratch& scratch, std::int64_t r, int rows) {
  if constexpr (Format::kKeysPerTurn == 1) {
    return scratch.s + r * kKeys;
  } else {
    auto* p = reinterpret_cast<BFloat16*>(scratch.p);
    for (int n = 0; n < rows * kKeys; n += kLanes) store(p + r * kKeys + n, load(scratch.s + r * kKeys + n));
    return reinterpret_cast<const typename Format::Weight*>(p + r * kKeys);
  }
}

/// R rows of O += P V over the keys that some of them see.
template <typename Format, int R>
void add_values(const ForwardTask& task, Scratch& scratch, const Block& block, std::int64_t r, Bits seen,
                const Ahead& ahead) {
  constexpr int kFit = kAccumulators / (R * Format::kVectors);
  const char* masked[kKeys];
  const char* const* values = block.values;
  if (seen != block.any) {
    for (int n = 0; n < kKeys; ++n) masked[n] = seen >> n & 1 ? block.values[n] : scratch.zeros;
    values = masked;
  }
  const int first = __builtin_ctzll(seen) / 2 * 2, last = kKeys - __builtin_clzll(seen);
  const int steps = int(rounded_up(task.value_dim, Format::kDims)) / Format::kDims;
  output_tiles<Format, R, (kFit > 0 ? kFit : 1)>(weights<Format>(scratch, r, R), values, first, last, 0, steps,
                                                 scratch.correction + r, scratch.o + r * scratch.value_dim,
                                                 scratch.value_dim, ahead);
}

/// R rows of a block: S = Q K^T, softmax, O += P V.
template <typename Format, int R>
void attend_rows(const ForwardTask& task, Scratch& scratch, const Block& block, std::int64_t r, const Ahead& keys,
                 const Ahead& values) {
  constexpr int N = kLanes / R;
  Bits seen = 0, shared = ~Bits(0);
  for (int k = 0; k < R; ++k) {
    seen |= block.visible[r + k];
    shared &= block.visible[r + k];
  }
  if (seen == 0) return;

  const int q_stride = scratch.head_dim / Format::kDims * Format::kQueryStep;
  const auto* q = reinterpret_cast<const typename Format::Query*>(scratch.q) + r * q_stride;
  const int steps = int(rounded_up(task.head_dim, Format::kDims)) / Format::kDims;
  float* s = scratch.s + r * kKeys;
  for (int n = 0; n < kKeys; n += N) {
    if ((seen & range_bits(n, n + N)) == 0) continue;
    score_tile<Format, R>(q, q_stride, steps, block.keys + n, s + n,
                          {keys.rows + n, keys.count / kKeys * N, keys.bytes});
  }
  for (int k = 0; k < R; ++k) {
    finish_scores(task, scratch.rows[r + k], block.first, block.visible[r + k], s + k * kKeys);
  }
  softmax_rows(scratch, r, R);
  if (task.dropout) {
    for (int k = 0; k < R; ++k) drop(task, scratch.rows[r + k], block.first, s + k * kKeys);
  }
  if (seen == shared) return add_values<Format, R>(task, scratch, block, r, seen, values);
  // A value that one row sees and another does not may hold NaN, which a zero weight would not stop.
  for (int k = 0; k < R; ++k) {
    if (block.visible[r + k] != 0) add_values<Format, 1>(task, scratch, block, r + k, block.visible[r + k], {});
  }
}

template <typename Format>
void attend_block(const ForwardTask& task, Scratch& scratch, Block& block, Ahead keys, Ahead values) {
  if (task.head_dim % Format::kDims != 0 || size_of(task.key_type) == 1) {
    stage_rows(task.key_type, task.head_dim, scratch.head_dim, block.any, scratch.staged_keys, block.keys);
  }
  if (task.value_dim % Format::kDims != 0 || size_of(task.key_type) == 1) {
    stage_rows(task.key_type, task.value_dim, scratch.value_dim, block.any, scratch.staged_values, block.values);
  }
  std::int64_t r = 0;
  const auto take = [&]<int R>() {
    for (; r + R <= task.rows; r += R) {
      attend_rows<Format, R>(task, scratch, block, r, keys, values);
      keys.count = values.count = 0;
    }
  };
  if constexpr (kMaxTileRows >= 4) take.template operator()<4>();
  take.template operator()<2>();
  take.template operator()<1>();
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

/// Places of the next blocks that are asked for in turn. Where rows of other heads lie between, four of them (on
/// Granite Rapids 0.69 of the read peak in float32 and 0.60 in bf16, against 0.55 and 0.46 with one); where a head's
/// rows follow one another, the hardware looks ahead by itself, best at one (bf16 6.2 ms against 8.5).
int places_of(const ForwardTask& task, int key_bytes) { return task.key.row_stride > key_bytes ? 4 : 1; }

/// The rows that one head's block asks for while it multiplies: its share of the next blocks of all heads, keys outside
/// heads, which is the order in memory where heads lie inside rows.
struct Share {
  const char* keys[kKeys];
  const char* values[kKeys];
};

void share_out(Scratch* const* scratches, int heads, int head, int next, int places, Share& share) {
  for (int place = 0; place < places; ++place) {
    const int first = (place * heads + head) * (kKeys / places);
    int key = first / heads, of_head = first % heads;
    for (int n = place; n < kKeys; n += places) {
      const Scratch& owner = *scratches[of_head];
      const Block& block = owner.blocks[next];
      share.keys[n] = owner.more[next] ? block.keys[key] : owner.zeros;
      share.values[n] = owner.more[next] ? block.values[key] : owner.zeros;
      if (++of_head < heads) continue;
      of_head = 0;
      ++key;
    }
  }
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
  const int key_bytes = tasks[0].head_dim * int(size_of(tasks[0].key_type));
  const int value_bytes = tasks[0].value_dim * int(size_of(tasks[0].key_type));
  const int places = places_of(tasks[0], key_bytes);
  for (int place = 0; more; place = 1 - place) {
    const int next = 1 - place;
    more = false;
    for (int head = 0; head < heads; ++head) {
      Scratch& scratch = *scratches[head];
      scratch.more[next] = false;
      if (scratch.more[place]) more |= find(head, scratch.blocks[place].first + kKeys, next);
    }
    for (int head = 0; head < heads; ++head) {
      Scratch& scratch = *scratches[head];
      if (!scratch.more[place]) continue;
      Share share;
      if (more) share_out(scratches, heads, head, next, places, share);
      const int count = more ? kKeys : 0;
      attend_block<Format>(tasks[head], scratch, scratch.blocks[place], {share.keys, count, key_bytes},
                           {share.values, count, value_bytes});
    }
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
