// The forward kernel for every GPU since Ampere: FlashAttention-2's algorithm 1 (arXiv 2307.08691) on mma.sync and
// cp.async. A block takes one tile of queries of one head and passes over the keys it may see, block by block. Values
// arrive while scores are computed, the next keys while values are added up. README.md has the timeline and the budget.
#pragma once

#include "cuda/sm80/forward/epilogue.cuh"
#include "cuda/sm80/forward/products.cuh"
#include "cuda/sm80/forward/suspects.cuh"

namespace strobe::cuda::sm80 {

extern __shared__ __align__(128) char shared_memory[];

/// One tile's work. Rows first_row.. of `head` in sequence s.
template <class C>
struct ForwardTask {
  const AttentionParams& p;
  const Sequence& s;
  int head, kv_head;
  TileView view;                      // of the block's rows
  int blocks;                         // key blocks up to the last one that matters
  float unit;                         // from scores to powers of two
  float score_factor, value_factor;   // of float8
  float slope;                        // ALiBi's
  u32 memory;                         // shared: queries, keys, values
  const char *key_data, *value_data;  // the KV head's first rows, where they are not in pages

  /// The tile's queries, into a group of copies that the first keys complete.
  STROBE_DEVICE void load_queries() const {
    const RowAddress rows = query_rows(p, p.query, s, head);
    const RowWindow window{view.first_row, 0, s.queries};
    if (copies_chunks<typename C::Element>(p.query)) {
      load_near_tile<typename C::QueryTile, C::kThreads>(memory, rows, window, p.head_dim);
    } else {
      load_scattered_tile<typename C::QueryTile, C::kThreads>(memory, rows, window, p.head_dim, false);
    }
  }

  STROBE_DEVICE u32 own_queries() const { return memory + C::warp_row() * C::QueryTile::kRowBytes; }
  STROBE_DEVICE u32 own_values() const { return values() + C::side() * C::kValueTiles * kChunkBytes; }
  STROBE_DEVICE u32 keys() const { return memory + C::kKeysAt; }
  STROBE_DEVICE u32 values() const { return memory + C::kValuesAt; }
  STROBE_DEVICE Exchange<C> exchange() const { return {memory + C::kExchangeAt}; }
  STROBE_DEVICE u32 own_bias() const { return memory + C::kBiasAt + warp_index() * C::BiasTile::kBytes; }

  using Blocks = Survey<C::kFeatures, C::kQueryTile, C::kKeyBlock>;
  STROBE_DEVICE int next(Blocks& survey, int block) const { return survey.next(p, s, head, view, block, blocks); }

  /// Asks for a block's keys or values, unless it is past the last one. A group of copies of its own, which may be
  /// empty.
  STROBE_DEVICE void load_keys(int block) const {
    if (block < blocks) load_rows<typename C::KeyTile>(keys(), p.key, key_data, window(block), p.head_dim);
    ptx::cp_async_commit();
  }
  STROBE_DEVICE void load_values(int block) const {
    if (block < blocks) load_rows<typename C::ValueTile>(values(), p.value, value_data, window(block), p.value_dim);
    ptx::cp_async_commit();
  }
  STROBE_DEVICE RowWindow window(int block) const {
    return {block * C::kKeyBlock, view.prefix > 0 ? 0 : view.begin, larger(view.end, view.prefix)};
  }

  template <class T>
  STROBE_DEVICE void load_rows(u32 tile, const RowsView& view, const char* data, RowWindow window, int dims) const {
    const bool vectors = copies_chunks<typename C::Element>(view);
    if (p.page_size == 0 && vectors) {
      load_near_tile<T, C::kThreads>(tile, {data, view.row_stride * C::Element::kBytes}, window, dims);
    } else {
      load_scattered_tile<T, C::kThreads>(tile, key_rows(p, view, s, kv_head), window, dims, vectors);
    }
  }

  /// Whether the bias comes by way of shared memory: each warp brings its own rows' for one block ahead.
  STROBE_DEVICE bool stages_bias() const {
    return C::kStagesBias && p.bias.in_chunks && int(p.bias.type) == int(p.query.type);
  }
  /// Asks for a block's bias, unless it is past the last one. A group of copies of its own.
  STROBE_DEVICE void load_bias(int block) const {
    if constexpr (C::kStagesBias) {
      if (block < blocks && stages_bias()) {
        const i64 head_place = s.batch * p.bias.batch_stride + head * p.bias.head_stride;
        const int first_row = view.first_row + C::warp_row(), first_key = block * C::kKeyBlock;
        __syncwarp();  // all lanes have left the block before
        load_warp_rows<typename C::BiasTile>(own_bias(),
                                             {p.bias.data + (head_place + first_key) * 2, p.bias.row_stride * 2},
                                             {first_row, 0, s.queries}, s.keys - first_key);
      }
      ptx::cp_async_commit();
    }
  }

  STROBE_DEVICE int thread_row() const { return view.first_row + C::warp_row() + lane_index() / 4; }

  /// What is hidden of a block of keys from the warp's rows: nothing by position, nothing by data.
  struct Whole {
    bool by_position, by_data;
    STROBE_DEVICE bool all() const { return by_position && by_data; }
  };

  /// Edits scores of the keys from `first` on and hides keys.
  STROBE_DEVICE void finish(int first, Whole whole, typename C::Scores& scores) const {
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      // What follows from these is worked out only where it is needed.
      const Sequence here = C::kFeatures == 0 ? s : untraced(s);
      const int row = ptx::untraced(thread_row()) + 16 * r;
      const ScoreRow rows[2] = {score_row<C::kFeatures>(p, here, head, row, slope),
                                score_row<C::kFeatures>(p, here, head, row + 8, slope)};
      if (stages_bias()) {
        if constexpr (C::kStagesBias) {
          add_staged_bias<typename C::BiasTile>(own_bias() + r * 16 * C::BiasTile::kRowBytes, p.scale, scores[r]);
        }
      } else if constexpr (C::kEdits) {
        edit_scores<typename C::Element, C::kFeatures, C::kKeyTiles>(p, here, rows, first, whole.all(), scores[r]);
      }
      if (!whole.by_position) hide_by_position<C::kKeyTiles>(view.prefix, rows, first, scores[r]);
      if constexpr ((C::kFeatures & kHidingFeatures) != 0) {
        if (!whole.by_data) {
          hide_by_data<C::kKeyTiles>(look_at_rows<C::kFeatures, C::kKeyTiles>(p, s.batch, head, row, first), scores[r]);
        }
      }
    }
  }

  /// P = exp2(S - origin) of S = Q K^T, for the part's keys from `first` on, which is row `in_block` of the tile.
  /// The maximum is looked for only where rows may have no origin yet, where keys are hidden, or when it turns out that
  /// weights have grown too large.
  STROBE_DEVICE void weigh_part(const TileView& mine, int first, int in_block, bool data_show_all, Softmax<C>& softmax,
                                typename C::Weights& weights, typename C::Outputs& o) const {
    typename C::Scores scores;
    constexpr bool kMayTrust = C::Element::kOriginSlack > 0.0f && C::kFeatures != kAllFeatures;
    const Whole whole{sees_all(mine, first, first + C::kPartKeys), data_show_all};
    const int own = first + C::side() * C::kOwnKeys;
    bool looks = !kMayTrust || !softmax.settled(whole.all());
    float total[C::kRowTiles][2];
    for (;;) {
      multiply_queries_and_keys<C>(own_queries(), keys(), in_block + C::side() * C::kOwnKeys, score_factor, scores);
      if (C::kEdits || (looks && !whole.all())) finish(own, whole, scores);
      if (looks) softmax.follow(unit, scores, o, exchange());
      softmax.weigh(unit, scores, total);
      if (looks || !softmax.overflows(total, exchange())) break;
      looks = true;
    }
    softmax.add(total);
    if constexpr ((C::kFeatures & kDropout) != 0) {
      drop<C>(p, s, head, view.first_row + C::warp_row(), own, scores);
    }
    pack_weights<C>(scores, weights);
    if constexpr (C::kSharing > 1) exchange().put(weights);
  }

  /// One pass over the keys, from `block` on, whose keys are asked for. Of keys and values, one is always under way
  /// while the other is worked on.
  STROBE_DEVICE void pass(const TileView& mine, Blocks& survey, int block, bool careful, Softmax<C>& softmax,
                          typename C::Outputs& o) const {
    softmax.start();
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o[r][t][e] = 0.0f;
      }
    }
    while (block < blocks) {
      const bool whole = survey.whole(block);
      const int upcoming = next(survey, block + 1);
      ptx::cp_async_wait<0>();
      __syncthreads();  // the keys are there for everyone, and everyone has left the last block's values
      load_values(block);
#pragma unroll 1
      for (int part = 0; part < C::kParts; ++part) {
        const int in_block = part * C::kPartKeys, key = block * C::kKeyBlock + in_block;
        typename C::Weights weights;
        const bool seen = __all_sync(~0u, reaches(mine, key, key + C::kPartKeys));
        if (seen) weigh_part(mine, key, in_block, whole, softmax, weights, o);
        if (part == 0) {
          load_bias(upcoming);
          ptx::cp_async_wait<C::kStagesBias ? 1 : 0>();
          __syncthreads();  // the values are there for everyone
          if (careful) {
            clear_suspects<typename C::ValueTile>(values(), int(threadIdx.x), C::kThreads);
            __syncthreads();
          }
        }
        if (part == C::kParts - 1) {
          if (C::kParts > 1) __syncthreads();
          load_keys(upcoming);  // everyone has left the keys
        }
        if (seen) {
          multiply_weights_and_values<C>(weights, own_values(), in_block + C::side() * C::kOwnKeys, o);
          if constexpr (C::kSharing > 1) {
            exchange().take(weights);
            multiply_weights_and_values<C>(weights, own_values(), in_block + (1 - C::side()) * C::kOwnKeys, o);
          }
        }
      }
      block = upcoming;
    }
    ptx::cp_async_wait<0>();  // a tile that sees no keys has not waited for its queries, whose place outputs take
  }

  STROBE_DEVICE void run() {
    load_queries();
    Blocks survey;
    const int first = next(survey, view.prefix > 0 ? 0 : view.begin / C::kKeyBlock);
    const int warp_row = view.first_row + C::warp_row();
    TileView mine{};
    Softmax<C> softmax;
    typename C::Outputs o;
    bool careful = false;
    for (;;) {
      load_bias(first);
      load_keys(first);
      if (warp_row < s.queries) mine = view_of(p, s, warp_row, C::kWarpRows);
      pass(mine, survey, first, careful, softmax, o);
      if (!__syncthreads_or(any_not_finite<C>(o)) || careful) break;
      careful = true;
    }
    write_tile<C>(p, s, head, view, unit, value_factor, softmax, exchange(), o, memory);
    if (careful) add_suspects<C>(p, s.batch, head, view.first_row);
  }
};

STROBE_DEVICE int quotient(int n, Divisor divisor) { return int(u64(u32(n)) * divisor.factor >> divisor.shift); }

template <class C>
STROBE_DEVICE void forward(const ForwardParams& f) {
  const AttentionParams& p = f.attention;
  // Heads come in groups whose keys the cache holds; within a group the tiles that see most keys come first, so that
  // blocks which start last are short.
  int tile = f.tiles - 1 - int(blockIdx.x >> f.group_bits);
  int head = int(blockIdx.y << f.group_bits | (blockIdx.x & ((1u << f.group_bits) - 1)));
  if (head >= f.heads) return;
  int b = quotient(head, f.by_query_heads);
  head -= b * p.query_heads;
  if (p.packed_queries && !find_packed_tile(p, C::kQueryTile, tile, b)) return;
  const Sequence s = sequence_of(p, b);

  const int first_row = tile * C::kQueryTile;
  if (first_row < s.queries) {
    const TileView view = view_of(p, s, first_row, C::kQueryTile);
    const int kv_head = quotient(head, f.by_group);
    ForwardTask<C> task{.p = p,
                        .s = s,
                        .head = head,
                        .kv_head = kv_head,
                        .view = view,
                        .blocks = ceil_div(larger(view.end, view.prefix), C::kKeyBlock),
                        .unit = score_unit<typename C::Element, C::kFeatures>(p),
                        .score_factor = score_factor_of<typename C::Element>(p, s, kv_head),
                        .value_factor = value_factor_of<typename C::Element>(p, s, kv_head),
                        .slope = alibi_slope<C::kFeatures>(p, s, head),
                        .memory = ptx::shared_address(shared_memory),
                        .key_data = key_rows(p, p.key, s, kv_head).data,
                        .value_data = key_rows(p, p.value, s, kv_head).data};
    task.run();
  }
  const int last_row = smaller(first_row + C::kQueryTile, s.stored_queries);
  if (last_row > s.queries) clear_rows(p, s, head, larger(first_row, s.queries), last_row);
}

}  // namespace strobe::cuda::sm80
