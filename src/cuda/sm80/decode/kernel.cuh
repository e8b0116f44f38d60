// The decode kernel: few query rows a KV head, so reading keys and values once, as fast as memory gives them, is all
// that matters (Flash-Decoding: keys of one query are split over blocks, and the parts merged). A block takes the 16
// rows of a KV head (query i of head g of the group is row i * group + g) through one split of the keys. Its warps
// never wait for each other: each takes every n-th step of 16 keys with loads, maxima and sums of its own, and only at
// the end their results are merged.
#pragma once

#include "cuda/sm80/decode/load.cuh"

namespace strobe::cuda::sm80 {

extern __shared__ __align__(128) char shared_memory[];

template <class C>
struct DecodeTask {
  const DecodeParams& d;
  const AttentionParams& p;
  const Sequence& s;
  int kv_head, first_row, rows;  // of this block
  int split;
  TileView view;   // what its rows see, cut down to the split
  RowWindow keys;  // rows of keys that may be read
  float unit, score_factor, value_factor;
  u32 memory;

  STROBE_DEVICE int query_of(int row) const { return (first_row + row) / p.group; }
  STROBE_DEVICE int head_of(int row) const { return kv_head * p.group + (first_row + row) % p.group; }

  STROBE_DEVICE u32 stage(int index) const {
    return memory + C::QueryTile::kBytes + (warp_index() * C::kStages + index) * C::kStageBytes;
  }

  STROBE_DEVICE void load_queries() const {
    const bool vectors = copies_chunks<typename C::Element>(p.query);
    for (int n = int(threadIdx.x); n < kDecodeRows * C::QueryTile::kRowChunks; n += C::kThreads) {
      const int row = n / C::QueryTile::kRowChunks, chunk = n % C::QueryTile::kRowChunks;
      const int left = row < rows ? larger(p.head_dim - chunk * C::QueryTile::kChunkElements, 0) : 0;
      const RowAddress address = query_rows(p, p.query, s, head_of(smaller(row, rows - 1)));
      const char* const from = address(query_of(smaller(row, rows - 1))) + chunk * C::QueryTile::kStoredChunkBytes;
      const u32 to = memory + C::QueryTile::offset(row, chunk);
      if (vectors) {
        ptx::cp_async_16(to, left > 0 ? from : address.data, left > 0);
      } else {
        ptx::st_shared_16(to, gather_chunk<typename C::Element>(from, left));
      }
    }
  }

  STROBE_DEVICE void load_step(int step, int index) const {
    const RowWindow window{step * kDecodeStep, keys.begin, keys.end};
    const u32 to = stage(index);
    load_warp_tile<typename C::KeyTile>(to, key_rows(p, p.key, s, kv_head), window, p.head_dim,
                                        copies_chunks<typename C::Element>(p.key));
    load_warp_tile<typename C::ValueTile>(to + C::KeyTile::kBytes, key_rows(p, p.value, s, kv_head), window,
                                          p.value_dim, copies_chunks<typename C::Element>(p.value));
  }

  STROBE_DEVICE ScoreRow row_facts(int row) const {
    ScoreRow facts = score_row<C::kFeatures>(p, s, head_of(smaller(row, rows - 1)), query_of(smaller(row, rows - 1)));
    facts.visible.first = larger(facts.visible.first, keys.begin);
    facts.visible.last = smaller(facts.visible.last, keys.end);
    return facts;
  }

  STROBE_DEVICE void visit(int step, u32 tiles, bool careful, Softmax<C>& softmax, typename C::Outputs& o) const {
    const int first = step * kDecodeStep;
    typename C::Scores scores;
    float total[C::kRowTiles][2];
    multiply_queries_and_keys<C>(memory, tiles, 0, score_factor, scores);
    if (C::kEdits || !sees_all(view, first, first + kDecodeStep)) {
      const ScoreRow facts[2] = {row_facts(lane_index() / 4), row_facts(lane_index() / 4 + 8)};
      finish_scores<C::kFeatures, C::kKeyTiles>(p, s, view.prefix, facts, first, scores[0]);
    }
    softmax.follow(unit, scores, o);
    softmax.weigh(unit, scores, total);
    softmax.add(total);
    if (careful) {
      clear_suspects<typename C::ValueTile>(tiles + C::KeyTile::kBytes, lane_index(), kWarpLanes);
      __syncwarp();
    }
    multiply_weights_and_values<C>(scores, tiles + C::KeyTile::kBytes, 0, o);
  }

  /// The warp's steps through the split.
  STROBE_DEVICE void pass(bool careful, Softmax<C>& softmax, typename C::Outputs& o) const {
    softmax.start();
#pragma unroll
    for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[0][t][e] = 0.0f;
    }
    const int end = ceil_div(larger(keys.end, 0), kDecodeStep);
    int step = keys.begin / kDecodeStep + warp_index(), ahead = step, filled = 0, index = 0;
#pragma unroll
    for (int n = 0; n < C::kStages - 1; ++n, ahead += C::kWarps) {
      if (ahead < end) load_step(ahead, filled);
      ptx::cp_async_commit();
      ++filled;
    }
    for (; step < end; step += C::kWarps, ahead += C::kWarps) {
      ptx::cp_async_wait<C::kStages - 2>();
      __syncwarp();
      if (ahead < end) load_step(ahead, filled);
      ptx::cp_async_commit();
      filled = filled + 1 == C::kStages ? 0 : filled + 1;
      visit(step, stage(index), careful, softmax, o);
      index = index + 1 == C::kStages ? 0 : index + 1;
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
  }

  /// Merges the warps' results by way of shared memory and writes the block's rows.
  STROBE_DEVICE void write(Softmax<C>& softmax, const typename C::Outputs& o) const {
    float* const results = reinterpret_cast<float*>(shared_memory + C::QueryTile::kBytes);
    constexpr int kRowFloats = C::kValueDim + 2, kWarpFloats = kDecodeRows * kRowFloats;
    const int lane = lane_index();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* const row = results + warp_index() * kWarpFloats + (lane / 4 + 8 * half) * kRowFloats;
      const float origin = softmax.origin[0][half], sum = sum_in_row(softmax.sum[0][half]);
      if (lane % 4 == 0) {
        row[0] = origin == minus_infinity() ? origin : origin * (unit * kLn2);
        row[1] = sum;
      }
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
        row[2 + 8 * t + 2 * (lane % 4)] = o[0][t][2 * half];
        row[2 + 8 * t + 2 * (lane % 4) + 1] = o[0][t][2 * half + 1];
      }
    }
    __syncthreads();
    const i64 part = split * d.part_stride, part_lse = split * d.part_lse_stride;
    for (int n = int(threadIdx.x); n < rows * p.value_dim; n += C::kThreads) {
      const int r = n / p.value_dim, dim = n % p.value_dim, head = head_of(r), i = query_of(r);
      const float* const row = results + r * kRowFloats;
      float origin = minus_infinity();
      if (p.sink.data && split == 0) origin = reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride];
      float sum = origin == minus_infinity() ? 0.0f : 1.0f, total = 0.0f;
      const float sink = origin;
      for (int w = 0; w < C::kWarps; ++w) origin = fmaxf(origin, row[w * kWarpFloats]);
      if (sink != minus_infinity()) sum = ptx::ex2((sink - origin) * kLog2E);
      for (int w = 0; w < C::kWarps; ++w) {
        const float* const from = row + w * kWarpFloats;
        if (from[0] == minus_infinity()) continue;
        const float factor = ptx::ex2((from[0] - origin) * kLog2E);
        sum += from[1] * factor;
        total += from[2 + dim] * factor;
      }
      const bool empty = origin == minus_infinity();
      char* const to = const_cast<char*>(query_rows(p, p.output, s, head)(i));
      store_float(to + part * size_of(p.output.type), p.output.type, dim, empty ? 0.0f : total / sum * value_factor);
      if (dim == 0 && p.lse.data) (&lse_at(p, s, head, i))[part_lse] = empty ? origin : origin + logf(sum);
    }
  }

  STROBE_DEVICE void run() {
    load_queries();
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
    Softmax<C> softmax;
    typename C::Outputs o;
    bool careful = false;
    for (;;) {
      pass(careful, softmax, o);
      if (!__syncthreads_or(any_not_finite<C>(o)) || careful) break;
      careful = true;
    }
    write(softmax, o);
    if (careful) add_row_suspects();
  }

  /// As the forward kernel's add_suspects, for this block's rows.
  STROBE_DEVICE void add_row_suspects() const {
    const KeyAddress values = key_rows(p, p.value, s, kv_head);
    __syncthreads();
#pragma unroll 1
    for (int n = int(threadIdx.x); n < rows * p.value_dim; n += C::kThreads) {
      const int r = n / p.value_dim, dim = n % p.value_dim;
      const ScoreRow facts = row_facts(r);
      char* const to = const_cast<char*>(query_rows(p, p.output, s, head_of(r))(query_of(r))) +
                       split * d.part_stride * size_of(p.output.type);
      float extra = 0.0f;
      for (int j = keys.begin; j < keys.end; ++j) {
        const float value = load_float_of<typename C::Element>(values(j), p.value.type, dim);
        if (is_finite(value) || !sees(facts.visible, view.prefix, j)) continue;
        if (data_shows<C::kFeatures>(p, s, facts, j)) extra += value;
      }
      if (extra != 0.0f) store_float(to, p.output.type, dim, load_float(to, p.output.type, dim) + extra);
    }
  }
};

template <class C>
STROBE_DEVICE void decode(const DecodeParams& d) {
  const AttentionParams& p = d.attention;
  const Sequence s = sequence_of(p, int(blockIdx.z));
  const int split = int(blockIdx.x), kv_head = int(blockIdx.y) / d.row_groups;
  const int first_row = int(blockIdx.y) % d.row_groups * kDecodeRows;
  const int rows = smaller(s.queries * p.group - first_row, kDecodeRows);
  const int last_stored = smaller(s.stored_queries * p.group - first_row, kDecodeRows);
  if (rows > 0) {
    TileView view = view_of(p, s, first_row / p.group, (first_row + rows - 1) / p.group - first_row / p.group + 1);
    const int begin = split * d.split_keys, end = smaller(begin + d.split_keys, s.keys);
    const int first = view.prefix > 0 ? 0 : view.begin, last = larger(view.end, view.prefix);
    const RowWindow keys{0, larger(begin, first), smaller(end, last)};
    view.all_last = smaller(view.all_last, keys.end);
    view.all_first = larger(view.all_first, keys.begin);
    view.prefix = smaller(view.prefix, keys.end);
    DecodeTask<C>{.d = d,
                  .p = p,
                  .s = s,
                  .kv_head = kv_head,
                  .first_row = first_row,
                  .rows = rows,
                  .split = split,
                  .view = view,
                  .keys = keys,
                  .unit = C::kEdits ? kLog2E : p.scale * kLog2E,
                  .score_factor = score_factor_of<typename C::Element>(p, s, kv_head),
                  .value_factor = value_factor_of<typename C::Element>(p, s, kv_head),
                  .memory = ptx::shared_address(shared_memory)}
        .run();
  }
  // Rows past query_lengths: zero, LSE -inf, in every part.
  for (int r = larger(rows, 0); r < last_stored; ++r) {
    const int i = (first_row + r) / p.group, head = kv_head * p.group + (first_row + r) % p.group;
    char* const to = const_cast<char*>(query_rows(p, p.output, s, head)(i));
    for (int dim = int(threadIdx.x); dim < p.value_dim; dim += C::kThreads) {
      store_float(to + split * d.part_stride * size_of(p.output.type), p.output.type, dim, 0.0f);
    }
    if (threadIdx.x == 0 && p.lse.data) (&lse_at(p, s, head, i))[split * d.part_lse_stride] = minus_infinity();
  }
}

}  // namespace strobe::cuda::sm80
