// The decode kernel: few query rows a KV head, so reading keys and values once, as fast as memory gives them, is all
// that matters (Flash-Decoding: keys of one query are split over blocks, and the parts merged). A block takes the 16
// rows of a KV head (query i of head g of the group is row i * group + g) through one split of the keys. Its warps
// never wait for each other: each takes every n-th step of 16 keys with loads, maxima and sums of its own, and only at
// the end their results are merged. The last block of a row group merges the splits' parts.
#pragma once

#include "cuda/sm80/decode/arrivals.cuh"
#include "cuda/sm80/decode/join.cuh"
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
  KeyAddress key, value;
  float unit, score_factor, value_factor;
  u32 memory;

  STROBE_DEVICE int query_of(int row) const { return d.row(first_row + row).query; }
  STROBE_DEVICE int head_of(int row) const { return kv_head * p.group + d.row(first_row + row).head_of_group; }

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
    load_warp_tile<typename C::KeyTile>(to, key, window, d.head_dim,
                                        d.plain || copies_chunks<typename C::Element>(p.key));
    load_warp_tile<typename C::ValueTile>(to + C::KeyTile::kBytes, value, window, d.value_dim,
                                          d.plain || copies_chunks<typename C::Element>(p.value));
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
    const bool whole = (C::kFeatures & kHidingFeatures) == 0 && sees_all(view, first, first + kDecodeStep);
    if (C::kEdits || !whole) {
      const ScoreRow facts[2] = {row_facts(lane_index() / 4), row_facts(lane_index() / 4 + 8)};
      finish_scores<typename C::Element, C::kFeatures, C::kKeyTiles>(p, s, view.prefix, facts, first, whole, scores[0]);
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

  /// The warp's steps through the split. Its first kStages turns only load; the queries come with the first of them.
  STROBE_DEVICE void pass(bool careful, Softmax<C>& softmax, typename C::Outputs& o) const {
    softmax.start();
#pragma unroll
    for (int t = 0; t < C::kValueTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[0][t][e] = 0.0f;
    }
    const int first = keys.begin / kDecodeStep, end = ceil_div(larger(keys.end, 0), kDecodeStep);
    const int turns = ceil_div(larger(end - first, 0), C::kWarps);
    int ahead = first + warp_index(), index = 0;
#pragma unroll 1
    for (int turn = -C::kStages; turn < turns; ++turn, ahead += C::kWarps) {
      if (turn >= 0) {
        ptx::cp_async_wait<C::kStages - 1>();
        if (turn == 0) {
          __syncthreads();
        } else {
          __syncwarp();
        }
        const int step = ahead - C::kStages * C::kWarps;
        if (step < end) visit(step, stage(index), careful, softmax, o);
        __syncwarp();
      }
      if (ahead < end) load_step(ahead, index);
      if (turn == -C::kStages && !careful) load_queries();
      ptx::cp_async_commit();
      index = index + 1 == C::kStages ? 0 : index + 1;
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
  }

  // A row of a warp's results in shared memory: values, maximum, sum; rows are a quarter of the banks apart.
  static constexpr int kResultFloats = C::kValueDim + 8, kWarpResultBytes = kDecodeRows * kResultFloats * 4;
  STROBE_DEVICE u32 result(int warp, int row, int column) const {
    return memory + C::QueryTile::kBytes + warp * kWarpResultBytes + (row * kResultFloats + column) * 4;
  }

  STROBE_DEVICE void leave_results(Softmax<C>& softmax, const typename C::Outputs& o) const {
    const int lane = lane_index();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      const float origin = softmax.origin[0][half], sum = sum_in_row(softmax.sum[0][half]);
      if (row >= rows) continue;
      if (lane % 4 == 0) {
        const float natural = origin == minus_infinity()
                                  ? origin
                                  : fmaf(origin, unit * kLn2, score_offset<typename C::Element, C::kFeatures>(p));
        ptx::st_shared_f32x2(result(warp_index(), row, C::kValueDim), make_float2(natural, sum));
      }
#pragma unroll
      for (int t = 0; t < C::kValueTiles; ++t) {
        ptx::st_shared_f32x2(result(warp_index(), row, 8 * t + 2 * (lane % 4)),
                             make_float2(o[0][t][2 * half], o[0][t][2 * half + 1]));
      }
    }
  }

  /// Merges the warps' results by way of shared memory and writes the block's rows, four elements a thread.
  STROBE_DEVICE void write(Softmax<C>& softmax, const typename C::Outputs& o) const {
    leave_results(softmax, o);
    __syncthreads();
    constexpr int kQuads = C::kValueDim / 4;
#pragma unroll 1
    for (int n = int(threadIdx.x); n < rows * kQuads; n += C::kThreads) {
      const int r = n / kQuads, dim = n % kQuads * 4, head = head_of(r), i = query_of(r);
      if (dim >= p.value_dim) continue;
      float sink = minus_infinity();
      if (p.sink.data && split == 0) sink = reinterpret_cast<const float*>(p.sink.data)[head * p.sink.stride];
      float origin = sink, sum = 0.0f, total[4] = {};
#pragma unroll
      for (int w = 0; w < C::kWarps; ++w) origin = fmaxf(origin, ptx::ld_shared_f32x2(result(w, r, C::kValueDim)).x);
      const bool empty = origin == minus_infinity();
      if (sink != minus_infinity()) sum = ptx::ex2((sink - origin) * kLog2E);
#pragma unroll
      for (int w = 0; w < C::kWarps; ++w) {
        const float2 facts = ptx::ld_shared_f32x2(result(w, r, C::kValueDim));
        if (facts.x == minus_infinity()) continue;
        const float factor = ptx::ex2((facts.x - origin) * kLog2E);
        const uint4 values = ptx::ld_shared_16(result(w, r, dim));
        sum += facts.y * factor;
        total[0] += __int_as_float(int(values.x)) * factor;
        total[1] += __int_as_float(int(values.y)) * factor;
        total[2] += __int_as_float(int(values.z)) * factor;
        total[3] += __int_as_float(int(values.w)) * factor;
      }
      const float factor = empty ? 0.0f : value_factor / sum;
#pragma unroll
      for (int e = 0; e < 4; ++e) total[e] = empty ? 0.0f : total[e] * factor;
      store_quad(row_of_part(head, i), p.output, p.value_dim, dim, total);
      if (dim == 0 && p.lse.data) {
        (&lse_at(p, s, head, i))[split * d.part_lse_stride] = empty ? minus_infinity() : origin + logf(sum);
      }
    }
  }

  STROBE_DEVICE char* row_of_part(int head, int i) const {
    const i64 part = split * d.part_stride * size_of(p.output.type);
    return const_cast<char*>(query_rows(p, p.output, s, head)(i)) + part;
  }

  STROBE_DEVICE void run(Arrivals& arrivals) {
    Softmax<C> softmax;
    typename C::Outputs o;
    bool careful = false;
    for (;;) {
      pass(careful, softmax, o);
      if (!__syncthreads_or(any_not_finite<C>(o)) || careful) break;
      careful = true;
    }
    arrivals.look();
    write(softmax, o);
    if (careful) add_row_suspects();
  }

  /// As the forward kernel's add_suspects, for this block's rows.
  STROBE_DEVICE void add_row_suspects() const {
    __syncthreads();
#pragma unroll 1
    for (int n = int(threadIdx.x); n < rows * p.value_dim; n += C::kThreads) {
      const int r = n / p.value_dim, dim = n % p.value_dim;
      const ScoreRow facts = row_facts(r);
      char* const to = row_of_part(head_of(r), query_of(r));
      float extra = 0.0f;
      for (int j = keys.begin; j < keys.end; ++j) {
        const float x = load_float_of<typename C::Element>(value(j), p.value.type, dim);
        if (is_finite(x) || !sees(facts.visible, view.prefix, j)) continue;
        if (data_shows<C::kFeatures>(p, s, facts, j)) extra += x;
      }
      if (extra != 0.0f) store_float(to, p.output.type, dim, load_float(to, p.output.type, dim) + extra);
    }
  }
};

template <class C>
STROBE_DEVICE void decode(const DecodeParams& d) {
  using Element = typename C::Element;
  const AttentionParams& p = d.attention;
  const int split = int(blockIdx.x), b = int(blockIdx.z);
  const bool single = d.row_groups == 1;  // the rule, and a division is forty instructions
  const int kv_head = single ? int(blockIdx.y) : int(blockIdx.y) / d.row_groups;
  const int first_row = single ? 0 : int(blockIdx.y) % d.row_groups * kDecodeRows;
  const Sequence s = d.plain ? plain_sequence(d, b) : sequence_of(p, b);
  const int rows = smaller(s.queries * p.group - first_row, kDecodeRows);
  const int last_stored = smaller(s.stored_queries * p.group - first_row, kDecodeRows);
  Arrivals arrivals(d.arrivals ? d.arrivals + (b * int(gridDim.y) + int(blockIdx.y)) : nullptr, d.tag, d.splits);
  if (d.plain || rows > 0) {
    const int begin = split * d.split_keys, end = smaller(begin + d.split_keys, s.keys);
    TileView view{0, 0, 0, s.keys, 0, s.keys, 0};
    RowWindow keys{0, begin, end};
    if (!d.plain) {
      const int first = d.row(first_row).query, last = d.row(first_row + rows - 1).query;
      view = view_of(p, s, first, last - first + 1);
      keys.begin = larger(begin, view.prefix > 0 ? 0 : view.begin);
      keys.end = smaller(end, larger(view.end, view.prefix));
    }
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
                  .key = d.plain ? plain_key_rows(d.key, b, kv_head) : key_rows(p, p.key, s, kv_head),
                  .value = d.plain ? plain_key_rows(d.value, b, kv_head) : key_rows(p, p.value, s, kv_head),
                  .unit = score_unit<typename C::Element, C::kFeatures>(p),
                  .score_factor = score_factor_of<Element>(p, s, kv_head),
                  .value_factor = value_factor_of<Element>(p, s, kv_head),
                  .memory = ptx::shared_address(shared_memory)}
        .run(arrivals);
  } else {
    arrivals.look();
  }
  // Rows past query_lengths: zero, LSE -inf, in every part.
  for (int r = larger(rows, 0); r < last_stored; ++r) {
    const auto [i, g] = d.row(first_row + r);
    const int head = kv_head * p.group + g;
    char* const to = const_cast<char*>(query_rows(p, p.output, s, head)(i));
    for (int dim = int(threadIdx.x); dim < p.value_dim; dim += C::kThreads) {
      store_float(to + split * d.part_stride * size_of(p.output.type), p.output.type, dim, 0.0f);
    }
    if (threadIdx.x == 0 && p.lse.data) (&lse_at(p, s, head, i))[split * d.part_lse_stride] = minus_infinity();
  }
  if (d.arrivals != nullptr && arrivals.complete()) {
    Join<C>{d, b, kv_head, first_row, last_stored, ptx::shared_address(shared_memory)}.run();
  }
}

}  // namespace strobe::cuda::sm80
