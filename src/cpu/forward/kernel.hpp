// The prefill kernel: a group of query tiles passes over the keys block by block. Lanes are queries throughout, so that
// maxima, exponentials and sums are vertical and a mask is a comparison of lanes.
#pragma once

#include "cpu/forward/scores.hpp"
#include "cpu/forward/softmax.hpp"

#if STROBE_ISA_ID == 4
#include "cpu/forward/split_staging.hpp"
#endif

namespace strobe::cpu::STROBE_ISA {
namespace {

template <class Operand>
class Prefill {
  using Word = typename Operand::Word;
  static constexpr int kPieces = Operand::kPieces;
  static constexpr std::size_t kSteps = kPieces > 1 ? kSpanBlocks : 1;  // that a tile takes together
  static constexpr std::size_t kStepFloats = (kPieces > 1 ? 2 + kPieces : 2) * kKeyBlock / 2 * kTileWidth;

 public:
  Prefill(const ForwardTask& task, void* scratch) : task_(task), words_(words_of(task.head_dim)) {
    auto* next = static_cast<float*>(scratch);
    const auto take = [&](std::size_t count) {
      float* const from = next;
      next += count;
      return from;
    };
    const auto dims = std::size_t(round_up(task.value_dim, kLanes));
    const auto words = std::size_t(round_up(words_, kLanes));
    query_stride_ = kPieces * words * kTileWidth;
    output_stride_ = dims * kTileWidth;
    scores_ = take(kSteps * kStepFloats);
    const auto tiles = std::size_t(max_tiles(task.head_dim, task.value_dim));
    query_ = reinterpret_cast<Word*>(take(tiles * query_stride_));
    output_ = take(tiles * output_stride_);
    blocks_ = reinterpret_cast<char*>(take(kSpanBlocks * packed_bytes(task.head_dim, task.value_dim) / sizeof(float)));
  }

  static std::size_t scratch_bytes(int head_dim, int value_dim) {
    const auto dims = std::size_t(kPieces * round_up(words_of(head_dim), kLanes) + round_up(value_dim, kLanes));
    const auto rows = std::size_t(max_tiles(head_dim, value_dim) * kTileWidth);
    return sizeof(float) * (kSteps * kStepFloats + rows * dims) + kSpanBlocks * packed_bytes(head_dim, value_dim);
  }

  /// Of a key block as the products read it: keys [kPieces][kKeyBlock][words], then
  /// values [kPieces][value_dim / kValueRows][kKeyBlock / kPerWord][kValueRows].
  static std::size_t packed_bytes(int head_dim, int value_dim) {
    return key_bytes(words_of(head_dim)) + sizeof(Word) * std::size_t(kPieces * kKeyBlock / Operand::kPerWord) *
                                               std::size_t(round_up(value_dim, kLanes));
  }

  /// ForwardUnit::pack.
  static void pack(const ForwardTask& task, std::int64_t block, int first, int last, char* to) {
    const int words = words_of(task.head_dim);
    Word *const keys = reinterpret_cast<Word*>(to), *const values = reinterpret_cast<Word*>(to + key_bytes(words));
    if constexpr (kPieces > 1) {
      stage_split_block<kPieces>(task, int(block), first, last, words, keys, values);
    } else {
      stage_block(task, int(block), first, last, words, keys, values);
    }
  }

  void run() {
    open();
    const std::int64_t first = task_.prefix > 0 ? task_.keys.first : max_of(task_.keys.first, round_down_key(first_));
    const std::int64_t last = min_of(task_.keys.last, max_of(last_, task_.prefix));
    constexpr int kDims = Operand::kInTiles ? 2 * kValueRows<Operand> : kTileRows;  // of a step
    steps_ = (task_.value_dim + kDims - 1) / kDims;
    rows_ahead_ = (kKeyBlock + tiles_ * steps_ - 1) / (tiles_ * steps_);
    std::int64_t key = first;
    do {  // once without any keys too: every tile must be begun and closed
      const std::int64_t end = min_of(key + kSpan, last);
      rows_end_ = min_of(end + kSpan, last);
      visit_span(key, end, key == first, end >= last);
      key = end;
    } while (key < last);
  }

 private:
  static std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
  static std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  /// Of a query or key row: whole register tiles.
  static int words_of(int head_dim) {
    const int words = (head_dim + Operand::kPerWord - 1) / Operand::kPerWord;
    return Operand::kInTiles ? round_up(words, kLanes) : words;
  }
  static std::size_t key_bytes(int words) {
    return sizeof(Word) * std::size_t(kPieces * kKeyBlock) * std::size_t(round_up(words, kLanes));
  }
  static std::int64_t round_down_key(std::int64_t key) { return key / kKeyBlock * kKeyBlock; }

  void open() {
    const bool capped = task_.softcap > 0.0f;
    unit_ = capped ? task_.scale / task_.softcap : task_.scale * kLog2E;
    factor_ = stage_query_factor();
    tiles_ = int((task_.rows + kTileWidth - 1) / kTileWidth);
    for (int t = 0; t < tiles_; ++t) {
      const std::int64_t row = std::int64_t(t) * kTileWidth;
      Tile& tile = tile_[t];
      open_tile(task_, task_.first_row + row, int(min_of(task_.rows - row, kTileWidth)), tile);
      first_ = t == 0 ? tile.first_min : min_of(first_, tile.first_min);
      last_ = t == 0 ? tile.last_max : max_of(last_, tile.last_max);
    }
    add_queries_ahead(0);
    ahead_.begin(1);
    ahead_.ask();
  }

  void begin(int t) {
    Word* const query = query_ + t * query_stride_;
    if constexpr (kPieces > 1) {
      const float factor = Operand::kScaled ? unit_ : __builtin_copysignf(1.0f, unit_);
      stage_split_query<kPieces>(task_, tile_[t], factor, words_, query);
    } else {
      stage_query(task_, tile_[t], unit_, query);
    }
    __builtin_memset(output_ + t * output_stride_, 0, sizeof(float) * output_stride_);
  }

  /// What products must still be multiplied by: of queries that are not scaled, only the sign is turned.
  float stage_query_factor() const { return Operand::kScaled ? 1.0f : __builtin_fabsf(unit_); }

  /// A key block in the layouts that the products read, and what each tile sees of it.
  struct Staged {
    Block block;
    const Word* keys;    // [kKeyBlock][words_]
    const Word* values;  // [value_dim / kValueRows][kKeyBlock / kPerWord][kValueRows]
    Visit visits[kMaxTiles];
  };

  /// Keys [first, last): all blocks are staged before the tiles pass over them, so that a tile comes into the near
  /// caches once a span. A tile is begun in the first span and closed in the last one that it sees.
  void visit_span(std::int64_t first, std::int64_t last, bool begins, bool ends) {
    Staged staged[kSpanBlocks];
    int blocks = 0;
    for (std::int64_t key = first; key < last; key += kKeyBlock) {
      if (stage(block_of(task_, key, min_of(key + kKeyBlock, last)), blocks, staged[blocks])) ++blocks;
    }
    next_row_ = last;
    for (int t = closed_; t < tiles_; ++t) {
      // Ends of tiles ascend: those that close are the first ones.
      const bool closes = ends || max_of(tile_[t].last_max, task_.prefix) <= last;
      if (begins) begin(t);
      ahead_.clear();
      if (begins && t + 1 < tiles_) add_queries_ahead(t + 1);
      if (closes) add_outputs_ahead(t);
      int visits = 0;
      for (int b = 0; b < blocks; ++b) visits += staged[b].visits[t].sees();
      ahead_.begin(visits * steps_);
      visit_tile(staged, blocks, t);
      if (!closes) continue;
      close(t);
      closed_ = t + 1;
    }
  }

  /// Finds what any tile sees of a block, packed or by staging it into place `index`; false if none sees anything.
  bool stage(const Block& block, int index, Staged& staged) {
    const char* const at = task_.packed != nullptr
                               ? task_.packed + block.first / kKeyBlock * task_.packed_stride
                               : blocks_ + std::size_t(index) * packed_bytes(task_.head_dim, task_.value_dim);
    staged.block = block;
    staged.keys = reinterpret_cast<const Word*>(at);
    staged.values = reinterpret_cast<const Word*>(at + key_bytes(words_));
    int first = kKeyBlock, last = 0;
    for (int t = 0; t < tiles_; ++t) {
      const Visit visit = staged.visits[t] = visit_of(task_, tile_[t], block);
      if (!visit.sees()) continue;
      first = visit.first < first ? visit.first : first;
      last = visit.last > last ? visit.last : last;
    }
    if (first >= last) return false;
    if (task_.packed == nullptr) pack(task_, block.first, first, last, const_cast<char*>(at));
    return true;
  }

  /// A tile's way through one key block.
  struct Step {
    float* scores;                 // [kKeyBlock][kTileWidth]
    float* weights;                // [kPieces][kKeyBlock / kPerWord][kTileWidth]; one piece lies in the scores' place
    Floats largest[kTileVectors];  // of the scores
    Floats rescale[kTileVectors];  // what the block's maximum makes of earlier results
    bool by_key;                   // weights are floats: some values must not be touched where they are hidden
  };

  /// Where values are split, the blocks of a span take each step together: whenever tile registers multiply after other
  /// work, the first products are slow (README.md). A tile with few rows computes fewer vectors, except on them.
  template <int kVectors = kTileVectors>
  void visit_tile(const Staged* staged, int blocks, int t) {
    if constexpr (kVectors > 1 && !Operand::kInTiles) {
      if (tile_[t].vectors < kVectors) return visit_tile<kVectors - 1>(staged, blocks, t);
    }
    constexpr int kTogether = int(kSteps);
    Step steps[kTogether];
    for (int first = 0; first < blocks; first += kTogether) {
      const int last = first + kTogether < blocks ? first + kTogether : blocks;
      const auto for_blocks = [&](auto take) {
        for (int b = first; b < last; ++b) {
          if (staged[b].visits[t].sees()) take(staged[b], steps[b - first], b - first);
        }
      };
      for_blocks([&](const Staged& block, Step& step, int place) {
        step.scores = scores_ + place * kStepFloats;
        step.weights = kPieces > 1 ? step.scores + kKeyBlock * kTileWidth : step.scores;
        score<kVectors>(block, t, step);
      });
      for_blocks([&](const Staged& block, Step& step, int) { weigh<kVectors>(block, t, step); });
      for_blocks([&](const Staged& block, Step& step, int) { add<kVectors>(block, t, step); });
    }
  }

  /// S^T = K Q^T
  template <int kVectors>
  STROBE_INLINE void score(const Staged& staged, int t, Step& step) {
    const Visit& visit = staged.visits[t];
    const Word* const query = query_ + t * query_stride_;
    for (int v = 0; v < kTileVectors; ++v) step.largest[v] = broadcast(kMinusInfinity);
    if constexpr (Operand::kInTiles) {
      multiply_keys_in_tiles<Operand>(query, staged.keys, words_, visit.first, visit.last, step.scores, step.largest);
    } else {
      for (int key = visit.first; key < visit.last; key += kTileRows) {
        const int hidden = visit.by_position ? hidden_vectors(task_, tile_[t], staged.block.first + key) : 0;
        multiply_seen_keys<kVectors>(hidden, query, staged.keys + key * words_, step.scores + key * kTileWidth,
                                     step.largest);
      }
    }
  }

  /// P^T = exp2(S^T - max)
  template <int kVectors>
  STROBE_INLINE void weigh(const Staged& staged, int t, Step& step) {
    Tile& tile = tile_[t];
    const Visit& visit = staged.visits[t];
    float factor = factor_;
    if (changes_scores(task_, visit)) {
      finish_scores(task_, tile, staged.block, visit, factor_, step.scores, step.largest);
      factor = 1.0f;
    }
    step.by_key = visit.hides && !values_are_finite<Operand>(staged.values, task_.value_dim, visit.first, visit.last);
    if (step.by_key) {
      soften<FloatOperand, kVectors>(task_, tile, staged.block.first, visit, factor, step.largest, step.scores,
                                     step.scores, step.rescale);
    } else {
      soften<Operand, kVectors>(task_, tile, staged.block.first, visit, factor, step.largest, step.scores,
                                reinterpret_cast<Word*>(step.weights), step.rescale);
    }
  }

  /// O^T = O^T * rescale + V^T P^T
  template <int kVectors>
  STROBE_INLINE void add(const Staged& staged, int t, const Step& step) {
    const Visit& visit = staged.visits[t];
    float* const output = output_ + t * output_stride_;
    if (step.by_key) return multiply_seen_values(staged.values, visit, kVectors, step, output);
    const auto* const weights = reinterpret_cast<const Word*>(step.weights);
    if constexpr (Operand::kInTiles) {
      if (kPieces == 1 && changes(step.rescale)) rescale_output(step.rescale, output);
      for (int d = 0; d < task_.value_dim; d += 2 * kValueRows<Operand>) {
        prefetch_next();
        multiply_values_in_tiles<Operand>(staged.values, weights, d, task_.value_dim, visit.first, visit.last,
                                          step.rescale, output);
      }
    } else {
      const int skipped = visit.first / Operand::kPerWord, words = visit.last / Operand::kPerWord - skipped;
      for (int d = 0; d < task_.value_dim; d += kTileRows) {
        prefetch_next();
        multiply_values<Operand, kVectors>(staged.values + (d * kKeyBlock / Operand::kPerWord + skipped * kTileRows),
                                           weights + skipped * kTileWidth, words, step.rescale,
                                           output + d * kTileWidth);
      }
    }
  }

  float value_at(const Word* values, int key, int d) const {
    float value = staged_value(values, key, d);
    if constexpr (kPieces > 1) {
      for (int piece = 1; piece < kPieces; ++piece) {
        value += staged_value(values + piece * value_piece(task_.value_dim), key, d);
      }
    }
    return value;
  }

  /// multiply_keys for all but the first `hidden` vectors of queries. Where a vector is left out its scores are hidden
  /// later, and all maxima found again.
  template <int kVectors>
  void multiply_seen_keys(int hidden, const Word* query, const Word* keys, float* scores,
                          Floats (&largest)[kTileVectors]) const {
    if constexpr (kVectors > 1) {
      if (hidden > 0) {
        return multiply_seen_keys<kVectors - 1>(hidden - 1, query + kLanes, keys, scores + kLanes, largest);
      }
    }
    multiply_keys<Operand, kVectors>(query, keys, words_, words_, scores, largest);
  }

  static bool changes(const Floats (&rescale)[kTileVectors]) {
    Mask same = equal(rescale[0], broadcast(1.0f));
    for (int v = 1; v < kTileVectors; ++v) same = both(same, equal(rescale[v], broadcast(1.0f)));
    return any(negate(same));
  }

  void rescale_output(const Floats (&rescale)[kTileVectors], float* output) const {
    for (int d = 0; d < task_.value_dim; ++d) {
      for (int v = 0; v < kTileVectors; ++v) {
        float* const at = output + d * kTileWidth + v * kLanes;
        store(at, mul(load(at), rescale[v]));
      }
    }
  }

  /// Spreads the reading ahead of the next span, of the next tile's queries and of this tile's output over the work on
  /// this tile: rows of a strided tensor lie pages apart, where the hardware does not look ahead by itself.
  void prefetch_next() {
    ahead_.ask();
    rows_due_ += rows_ahead_;
    if (task_.packed == nullptr && rows_due_ < kKeysAtOnce) return;
    for (; rows_due_ > 0 && next_row_ < rows_end_; --rows_due_) prefetch_row(task_, next_row_++);
    rows_due_ = 0;
  }

  void add_queries_ahead(int t) {
    const std::int64_t bytes = task_.head_dim * element_bytes(task_.query_type);
    for (int lane = 0; lane < tile_[t].rows; ++lane) ahead_.add(query_row(task_, tile_[t], lane), bytes);
  }
  void add_outputs_ahead(int t) {
    const std::int64_t bytes = task_.value_dim * element_bytes(task_.output_type);
    for (int lane = 0; lane < tile_[t].rows; ++lane) ahead_.add(output_row(tile_[t], lane), bytes);
  }

  /// multiply_values where a hidden key's value may be infinite or NaN: weight zero must not touch it.
  void multiply_seen_values(const Word* values, const Visit& visit, int vectors, const Step& step, float* output) {
    for (int d = 0; d < task_.value_dim; ++d) {
      for (int v = 0; v < vectors; ++v) {
        float* const at = output + d * kTileWidth + v * kLanes;
        Floats sum = mul(load(at), step.rescale[v]);
        for (int key = visit.first; key < visit.last; ++key) {
          const Floats weight = load(step.scores + key * kTileWidth + v * kLanes);
          const Floats value = broadcast(value_at(values, key, d));
          sum = select(equal(weight, zero()), sum, fma(weight, value, sum));
        }
        store(at, sum);
      }
    }
  }

  /// Writes O = accumulated / sum and LSE = max + ln(sum) of a tile's rows.
  void close(int t) {
    const Tile& tile = tile_[t];
    const float* const output = output_ + t * output_stride_;
    const float scale = task_.value_scale * (task_.dropout ? task_.dropout_scale : 1.0f);
    for (int lane = 0; lane < kTileWidth; lane += kLanes) {
      const Floats sum = load(tile.sum + lane);
      const Floats inverse = select(equal(sum, zero()), zero(), div(broadcast(scale), sum));
      for (int d = 0; d < task_.value_dim; d += kLanes) {
        Floats block[kLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = mul(load(output + (d + i) * kTileWidth + lane), inverse);
        transpose(block);
        const int dims = task_.value_dim - d < kLanes ? task_.value_dim - d : kLanes;
        for (int row = 0; row < kLanes && lane + row < tile.rows; ++row) {
          store_dims(output_row(tile, lane + row), task_.output_type, d, dims, block[row]);
        }
      }
    }
    if (task_.lse == nullptr) return;
    for (int lane = 0; lane < tile.rows; ++lane) {
      char* const to =
          task_.lse + tile.query_index[lane] * task_.lse_row_stride + tile.head[lane] * task_.lse_head_stride;
      const double lse = double(tile.max[lane]) * 0.6931471805599453 + double(__builtin_logf(tile.sum[lane]));
      *reinterpret_cast<float*>(to) = tile.sum[lane] == 0.0f ? kMinusInfinity : float(lse);
    }
  }

  char* output_row(const Tile& tile, int lane) const {
    return task_.output + tile.query_index[lane] * task_.output_row_stride + tile.head[lane] * task_.output_head_stride;
  }

  const ForwardTask& task_;
  const int words_;                           // of a query or key row
  std::size_t query_stride_, output_stride_;  // between tiles
  float unit_ = 1.0f;                         // takes dot(q, k) to units of log2, or of the softcap where there is one
  float factor_ = 1.0f;                       // what products must still be multiplied by
  int tiles_ = 0;
  int closed_ = 0;                            // tiles that are done
  int steps_ = 1;                             // products with values in a visit
  int rows_ahead_ = 1, rows_due_ = 0;         // keys to read ahead a product, and by now
  std::int64_t next_row_ = 0, rows_end_ = 0;  // the next row to read ahead, and where to stop
  std::int64_t first_ = 0, last_ = 0;         // keys that some row sees by position
  float* scores_;                             // [kSteps][kStepFloats]
  Word* query_;                               // [tile][kPieces][words_][kTileWidth]
  float* output_;                             // [tile][value_dim][kTileWidth]
  char* blocks_;                              // of a span, where keys are not packed
  RowsAhead ahead_;
  Tile tile_[kMaxTiles];
};

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
