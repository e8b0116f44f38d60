// The forward kernel for every GPU since Ampere: FlashAttention-2's algorithm 1 (arXiv 2307.08691) on mma.sync and
// cp.async. A block takes one tile of queries of one head and passes over the keys it may see, block by block; the next
// block's keys and values arrive while this one is computed. README.md has the timeline and the budget.
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
  int head;
  TileView view;
  int blocks;                         // key blocks up to the last one that matters
  float unit;                         // from scores to powers of two
  float score_factor, value_factor;   // of float8
  u32 memory;                         // shared: queries, key stages, value stages
  const char *key_data, *value_data;  // the KV head's first rows, where they are not in pages

  STROBE_DEVICE u32 keys(int stage) const { return memory + C::kKeysAt + stage * C::KeyTile::kBytes; }
  STROBE_DEVICE u32 values(int stage) const { return memory + C::kValuesAt + stage * C::ValueTile::kBytes; }

  STROBE_DEVICE int next(int block) const {
    return next_block<C::kFeatures, C::kKeyBlock>(p, s, head, view, block, blocks);
  }

  STROBE_DEVICE void load_queries() const {
    const RowAddress rows = query_rows(p, p.query, s, head);
    const RowWindow window{view.first_row, view.first_row, view.last_row};
    if (copies_chunks<typename C::Element>(p.query)) {
      load_tile<typename C::QueryTile, C::kThreads>(memory, rows, window, p.head_dim);
    } else {
      load_scattered_tile<typename C::QueryTile, C::kThreads>(memory, rows, window, p.head_dim, false);
    }
  }

  STROBE_DEVICE void load_block(int block, int stage) const {
    const RowWindow window{block * C::kKeyBlock, view.prefix > 0 ? 0 : view.begin, larger(view.end, view.prefix)};
    load_rows<typename C::KeyTile>(keys(stage), p.key, key_data, window, p.head_dim);
    load_rows<typename C::ValueTile>(values(stage), p.value, value_data, window, p.value_dim);
  }

  template <class T>
  STROBE_DEVICE void load_rows(u32 tile, const RowsView& view, const char* data, RowWindow window, int dims) const {
    const bool vectors = copies_chunks<typename C::Element>(view);
    if (p.page_size == 0 && vectors) {
      load_tile<T, C::kThreads>(tile, {data, view.row_stride * C::Element::kBytes}, window, dims);
    } else {
      load_scattered_tile<T, C::kThreads>(tile, key_rows(p, view, s, head / p.group), window, dims, vectors);
    }
  }

  STROBE_DEVICE int thread_row() const { return view.first_row + warp_index() * C::kWarpRows + lane_index() / 4; }

  /// Edits scores of the keys from `first` on and hides keys, where there is something to do.
  STROBE_DEVICE void finish(int first, typename C::Scores& scores) const {
    if (!C::kEdits && sees_all(view, first, first + C::kPartKeys)) return;
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
      const int row = thread_row() + 16 * r;
      const ScoreRow rows[2] = {score_row<C::kFeatures>(p, s, head, row), score_row<C::kFeatures>(p, s, head, row + 8)};
      finish_scores<C::kFeatures, C::kKeyTiles>(p, s, view.prefix, rows, first, scores[r]);
    }
  }

  /// O += P V for the part's keys from `first` on, which is row `in_block` of the block.
  STROBE_DEVICE void add_values(int first, int in_block, int stage, typename C::Scores& weights,
                                typename C::Outputs& o) const {
    if constexpr ((C::kFeatures & kDropout) != 0) {
      drop<C>(p, s, head, view.first_row + warp_index() * C::kWarpRows, first, weights);
    }
    multiply_weights_and_values<C>(weights, values(stage), in_block, o);
  }

  /// A whole block of visible keys, without looking for maxima. Returns how many of its parts are done: fewer than all
  /// when weights grow too large.
  STROBE_DEVICE int visit_settled(int block, int stage, Softmax<C>& softmax, typename C::Outputs& o) const {
    const int first = block * C::kKeyBlock;
    typename C::Scores scores[C::kParts];
    float total[C::kRowTiles][2];
#pragma unroll
    for (int part = 0; part < C::kParts; ++part) {
      multiply_queries_and_keys<C>(memory, keys(stage), part * C::kPartKeys, score_factor, scores[part]);
      if (C::kEdits) finish(first + part * C::kPartKeys, scores[part]);
    }
#pragma unroll
    for (int part = 0; part < C::kParts; ++part) {
      softmax.weigh(unit, scores[part], total);
      if (softmax.overflows(total)) return part;
      softmax.add(total);
      add_values(first + part * C::kPartKeys, part * C::kPartKeys, stage, scores[part], o);
    }
    return C::kParts;
  }

  STROBE_DEVICE void visit_part(int block, int part, int stage, Softmax<C>& softmax, typename C::Outputs& o) const {
    const int in_block = part * C::kPartKeys, first = block * C::kKeyBlock + in_block;
    typename C::Scores scores;
    float total[C::kRowTiles][2];
    multiply_queries_and_keys<C>(memory, keys(stage), in_block, score_factor, scores);
    finish(first, scores);
    softmax.follow(unit, scores, o);
    softmax.weigh(unit, scores, total);
    softmax.add(total);
    add_values(first, in_block, stage, scores, o);
  }

  STROBE_DEVICE void visit(int block, int stage, bool careful, Softmax<C>& softmax, typename C::Outputs& o) const {
    int part = 0;
    if (careful) {
      clear_suspects<typename C::ValueTile>(values(stage), int(threadIdx.x), C::kThreads);
      __syncthreads();
    } else if constexpr (C::Element::kOriginSlack > 0.0f && C::kFeatures != kAllFeatures) {
      if (softmax.settled() && sees_all(view, block * C::kKeyBlock, (block + 1) * C::kKeyBlock)) {
        part = visit_settled(block, stage, softmax, o);
      }
    }
#pragma unroll 1
    for (; part < C::kParts; ++part) visit_part(block, part, stage, softmax, o);
  }

  /// One pass over the keys.
  STROBE_DEVICE void pass(bool careful, Softmax<C>& softmax, typename C::Outputs& o) const {
    softmax.start();
#pragma unroll
    for (int r = 0; r < C::kRowTiles; ++r) {
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o[r][t][e] = 0.0f;
      }
    }
    int block = next(view.prefix > 0 ? 0 : view.begin / C::kKeyBlock), stage = 0;
    if (block < blocks) load_block(block, stage);
    ptx::cp_async_commit();
    while (block < blocks) {
      const int upcoming = next(block + 1);
      ptx::cp_async_wait<0>();
      __syncthreads();  // the block's tiles are there for everyone, and everyone has left the stage that is filled next
      if (C::kStages > 1) {
        if (upcoming < blocks) load_block(upcoming, 1 - stage);
        ptx::cp_async_commit();
      }
      visit(block, stage, careful, softmax, o);
      if (C::kStages > 1) {
        stage = 1 - stage;
      } else {
        __syncthreads();
        if (upcoming < blocks) load_block(upcoming, stage);
        ptx::cp_async_commit();
      }
      block = upcoming;
    }
  }

  STROBE_DEVICE void run() {
    load_queries();
    Softmax<C> softmax;
    typename C::Outputs o;
    bool careful = false;
    for (;;) {
      pass(careful, softmax, o);
      if (!__syncthreads_or(any_not_finite<C>(o)) || careful) break;
      careful = true;
    }
    write_tile<C>(p, s, head, view, unit, value_factor, softmax, o, memory);
    if (careful) add_suspects<C>(p, s, head, view);
  }
};

template <class C>
STROBE_DEVICE void forward(const ForwardParams& f) {
  const AttentionParams& p = f.attention;
  // Heads come in groups whose keys the cache holds; within a group the tiles that see most keys come first, so that
  // blocks which start last are short.
  const int group_tiles = f.heads_per_group * f.tiles;
  const int first_head = int(blockIdx.x) / group_tiles * f.heads_per_group;
  const int heads = smaller(f.heads_per_group, f.heads - first_head), place = int(blockIdx.x) % group_tiles;
  int tile = f.tiles - 1 - place / heads, head = first_head + place % heads, b = head / p.query_heads;
  head %= p.query_heads;
  if (p.packed_queries && !find_packed_tile(p, C::kQueryTile, tile, b)) return;
  const Sequence s = sequence_of(p, b);

  const int first_row = tile * C::kQueryTile;
  if (first_row < s.queries) {
    const TileView view = view_of(p, s, first_row, C::kQueryTile);
    ForwardTask<C> task{.p = p,
                        .s = s,
                        .head = head,
                        .view = view,
                        .blocks = ceil_div(larger(view.end, view.prefix), C::kKeyBlock),
                        .unit = C::kEdits ? kLog2E : p.scale * kLog2E,
                        .score_factor = score_factor_of<typename C::Element>(p, s, head / p.group),
                        .value_factor = value_factor_of<typename C::Element>(p, s, head / p.group),
                        .memory = ptx::shared_address(shared_memory),
                        .key_data = key_rows(p, p.key, s, head / p.group).data,
                        .value_data = key_rows(p, p.value, s, head / p.group).data};
    task.run();
  }
  clear_rows(p, s, head, larger(first_row, s.queries), smaller(first_row + C::kQueryTile, s.stored_queries));
}

}  // namespace strobe::cuda::sm80
