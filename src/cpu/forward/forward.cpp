// Forward driver: cuts a problem into tasks (sequence, KV head, row group, key split) and hands them to the prefill or
// decode unit of the chosen instruction set, a round at a time where keys are packed, then merges what was split.
// Nothing here depends on the number of threads but who runs which task.
#include <algorithm>
#include <cstring>

#include "base/philox.hpp"
#include "cpu/cpu.hpp"
#include "cpu/forward/driver.hpp"
#include "cpu/forward/packing.hpp"
#include "cpu/forward/task.hpp"
#include "cpu/rotary.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {
namespace {

constexpr std::size_t round_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// The shared part of the workspace, in order. Workers' scratch follows.
struct SharedLayout {
  std::size_t first_chunks, rotated, part_outputs, part_lses, packed, bytes;
};

SharedLayout shared_layout(const Problem& problem, const Decision& decision) {
  const auto rows = std::size_t(problem.total_queries * problem.query_heads);
  const auto parts = std::size_t(decision.max_splits > 1 ? decision.max_splits : 0);
  SharedLayout layout{};
  layout.rotated = layout.first_chunks + round_up(std::size_t(problem.batch + 1) * sizeof(std::int64_t));
  layout.part_outputs = layout.rotated + rotated_query_bytes(problem);
  layout.part_lses = layout.part_outputs + round_up(parts * rows * std::size_t(problem.value_dim) * sizeof(float));
  layout.packed = layout.part_lses + round_up(parts * rows * sizeof(float));
  layout.bytes = layout.packed + packed_memory_bytes(problem, pick_forward_unit(decision.isa), decision);
  return layout;
}

/// Everything that the chunks of one call read.
struct Job {
  const Problem& problem;
  const Buffers& buffers;
  const Decision& decision;
  const ForwardUnit& prefill;
  const DecodeUnit& decode;
  Rows query;   // rotated where asked for
  Rows output;  // the call's, or the first part's
  Scores lse;
  std::int64_t part_stride, part_lse_stride;  // elements between splits; 0: not split
  std::int64_t group_rows;                    // rows of a prefill task
  std::int64_t decode_heads;                  // KV heads of a decode task
  Round round;
  std::int64_t* first_chunks;  // [sequences of the round + 1]: chunks before each sequence
  char* packed;                // key blocks of the round; null: tasks stage for themselves
  std::size_t packed_block;    // bytes
  char* scratch;
};

bool decodes(const Decision& decision, const Problem& problem, const Sequence& s) {
  return s.queries * problem.group() <= decision.decode_rows;
}

std::int64_t splits_of(const Decision& decision, const Sequence& s) {
  if (decision.max_splits <= 1) return 1;
  return std::clamp<std::int64_t>((s.keys + decision.split_keys - 1) / decision.split_keys, 1, decision.max_splits);
}

std::int64_t row_groups_of(const Job& job, const Sequence& s) {
  return (s.queries * job.problem.group() + job.group_rows - 1) / job.group_rows;
}

std::int64_t head_groups_of(const Job& job) { return (job.round.heads() + job.decode_heads - 1) / job.decode_heads; }

std::int64_t chunks_of(const Job& job, const Sequence& s) {
  if (s.queries == 0) return 0;
  const bool decode = decodes(job.decision, job.problem, s);
  return splits_of(job.decision, s) * (decode ? head_groups_of(job) : job.round.heads() * row_groups_of(job, s));
}

ScoreRows score_rows(const Scores& scores, bool given, std::int64_t b, std::int64_t head) {
  if (!given) return {};
  const auto bytes = std::int64_t(size_of(scores.dtype));
  return {.data = scores.data + (b * scores.batch_stride + head * scores.head_stride) * bytes,
          .dtype = scores.dtype,
          .head_stride = scores.head_stride * bytes,
          .row_stride = scores.row_stride * bytes,
          .column_stride = scores.column_stride * bytes};
}

float descale(const Vectors& factors, std::int64_t b, std::int64_t kv_head) {
  if (factors.data == nullptr) return 1.0f;
  return reinterpret_cast<const float*>(factors.data)[b * factors.batch_stride + kv_head * factors.stride];
}

/// The task of all query rows of (s, kv_head) against all its keys.
ForwardTask whole_task(const Job& job, const Sequence& s, std::int64_t kv_head) {
  const Problem& problem = job.problem;
  const Buffers& buffers = job.buffers;
  const std::int64_t b = s.batch, head = kv_head * problem.group();
  ForwardTask task{};
  task.group = problem.group();
  task.rows = s.queries * task.group;
  task.keys = {0, s.keys};
  task.key_length = s.keys;
  task.head_dim = int(problem.head_dim);
  task.value_dim = int(problem.value_dim);

  const auto row_of = [&](const Rows& rows) {
    return rows.data + (b * rows.batch_stride + s.first_query * rows.row_stride + head * rows.head_stride) *
                           std::int64_t(size_of(rows.dtype));
  };
  task.query = row_of(job.query);
  task.query_type = job.query.dtype;
  task.query_row_stride = job.query.row_stride * std::int64_t(size_of(job.query.dtype));
  task.query_head_stride = job.query.head_stride * std::int64_t(size_of(job.query.dtype));
  task.key = key_rows(problem, buffers, s, buffers.key, kv_head);
  task.value = key_rows(problem, buffers, s, buffers.value, kv_head);
  task.key_type = buffers.key.dtype;
  if (job.packed != nullptr) {
    task.packed_stride = std::int64_t(job.packed_block);
    task.packed = job.packed + first_packed_block(problem, job.prefill, job.round, s, kv_head) * task.packed_stride;
  }
  task.output = row_of(job.output);
  task.output_type = job.output.dtype;
  task.output_row_stride = job.output.row_stride * std::int64_t(size_of(job.output.dtype));
  task.output_head_stride = job.output.head_stride * std::int64_t(size_of(job.output.dtype));
  if (job.lse.data != nullptr) {
    const ScoreRows lse = score_rows(job.lse, true, b, head);
    task.lse = const_cast<char*>(lse.data) + s.first_query * lse.row_stride;
    task.lse_row_stride = lse.row_stride;
    task.lse_head_stride = lse.head_stride;
  }

  task.scale = problem.scale;
  task.value_scale = 1.0f;
  if (problem.has_descale) {
    task.scale *= descale(buffers.query_descale, b, kv_head) * descale(buffers.key_descale, b, kv_head);
    task.value_scale = descale(buffers.value_descale, b, kv_head);
  }
  task.softcap = problem.softcap;
  task.bias = score_rows(buffers.bias, problem.has_bias, b, head);
  if (problem.has_alibi) {
    const Vectors& slopes = buffers.alibi_slopes;
    task.alibi_slopes = reinterpret_cast<const float*>(slopes.data) + b * slopes.batch_stride + head * slopes.stride;
    task.alibi_stride = slopes.stride;
  }
  if (problem.has_sink) {
    task.sink = reinterpret_cast<const float*>(buffers.sink.data) + head * buffers.sink.stride;
    task.sink_stride = buffers.sink.stride;
  }

  task.position_shift = s.position_shift;
  task.left = problem.window_left == kUnbounded ? kFar : problem.window_left;
  task.right = problem.causal ? 0 : problem.window_right == kUnbounded ? kFar : problem.window_right;
  task.prefix = s.prefix;
  if (problem.has_documents) {
    const Vectors &queries = buffers.query_documents, &keys = buffers.key_documents;
    task.query_documents =
        reinterpret_cast<const std::int32_t*>(queries.data) + b * queries.batch_stride + s.first_query * queries.stride;
    task.key_documents =
        reinterpret_cast<const std::int32_t*>(keys.data) + b * keys.batch_stride + s.first_key * keys.stride;
    task.query_document_stride = queries.stride;
    task.key_document_stride = keys.stride;
  }
  task.mask = score_rows(buffers.mask, problem.has_mask, b, head);
  task.block_mask = score_rows(buffers.block_mask, problem.has_block_mask, b, head);
  task.block_rows = problem.block_rows;
  task.block_columns = problem.block_columns;
  if (problem.dropout > 0.0f) {
    task.dropout = true;
    task.dropout_threshold = dropout_threshold(problem.dropout);
    task.dropout_scale = 1.0f / (1.0f - problem.dropout);
    task.dropout_seed = problem.dropout_seed;
    task.dropout_stream = problem.dropout_offset + std::uint64_t(b * problem.query_heads + head);
  }
  return task;
}

/// The task of all query rows of (s, kv_head) against the keys of a split.
ForwardTask split_task(const Job& job, const Sequence& s, std::int64_t kv_head, std::int64_t split) {
  ForwardTask task = whole_task(job, s, kv_head);
  if (job.part_stride > 0) {
    task.output += split * job.part_stride * std::int64_t(sizeof(float));
    task.lse += split * job.part_lse_stride * std::int64_t(sizeof(float));
    task.keys.first = split * job.decision.split_keys;
    task.keys.last = std::min(task.keys.first + job.decision.split_keys, s.keys);
    if (split > 0) task.sink = nullptr;
  }
  return task;
}

/// Chunk `index` of a sequence that decodes: (split, group of KV heads).
void decode_chunk(const Job& job, const Sequence& s, std::int64_t index, void* scratch) {
  const std::int64_t head_groups = head_groups_of(job), split = index / head_groups;
  const std::int64_t first = job.round.first_head + index % head_groups * job.decode_heads;
  const auto heads = int(std::min(job.decode_heads, job.round.last_head - first));
  ForwardTask tasks[kMaxDecodeHeads];
  for (int h = 0; h < heads; ++h) tasks[h] = split_task(job, s, first + h, split);
  job.decode.run(tasks, heads, scratch);
}

/// Chunk `index` of any other sequence: (split, KV head, row group), the last rows first: under a causal mask they see
/// the most keys, so that threads finish together, and neighbouring chunks find their keys in the cache.
void prefill_chunk(const Job& job, const Sequence& s, std::int64_t index, void* scratch) {
  const std::int64_t groups = row_groups_of(job, s), heads = job.round.heads();
  ForwardTask task = split_task(job, s, job.round.first_head + index / groups % heads, index / groups / heads);
  task.first_row = (groups - 1 - index % groups) * job.group_rows;
  task.rows = std::min(job.group_rows, task.rows - task.first_row);
  job.prefill.run(task, scratch);
}

void run_chunk(void* context, std::int64_t chunk, int worker) {
  const Job& job = *static_cast<const Job*>(context);
  const std::int64_t *const begin = job.first_chunks, *const end =
                                                          begin + (job.round.last_batch - job.round.first_batch) + 1;
  const std::int64_t b = std::upper_bound(begin, end, chunk) - begin - 1;
  const Sequence s = sequence_of(job.problem, job.buffers, job.round.first_batch + b);
  const auto run = decodes(job.decision, job.problem, s) ? decode_chunk : prefill_chunk;
  run(job, s, chunk - job.first_chunks[b], job.scratch + std::size_t(worker) * job.decision.worker_bytes);
}

/// Chunk (sequence, key block): packs the block for all heads of the round.
void pack_chunk(void* context, std::int64_t chunk, int) {
  const Job& job = *static_cast<const Job*>(context);
  const int rows = job.prefill.key_block, step = job.prefill.packed_rows;
  const std::int64_t sequences = job.round.last_batch - job.round.first_batch;
  const Sequence s = sequence_of(job.problem, job.buffers, job.round.first_batch + chunk % sequences);
  const std::int64_t block = chunk / sequences * rows;
  if (block >= s.keys || decodes(job.decision, job.problem, s)) return;
  ForwardTask task{};
  task.head_dim = int(job.problem.head_dim);
  task.value_dim = int(job.problem.value_dim);
  task.query_type = job.query.dtype;
  task.key_type = job.buffers.key.dtype;
  task.key_length = s.keys;
  const auto last = int(std::min<std::int64_t>(s.keys - block + step - 1, rows)) / step * step;
  // All heads of a few keys in turn, whose pages then stay in the first-level TLB.
  for (int row = 0; row < last; row += step) {
    for (std::int64_t head = job.round.first_head; head < job.round.last_head; ++head) {
      task.key = key_rows(job.problem, job.buffers, s, job.buffers.key, head);
      task.value = key_rows(job.problem, job.buffers, s, job.buffers.value, head);
      const std::int64_t at = first_packed_block(job.problem, job.prefill, job.round, s, head) + block / rows;
      job.prefill.pack(task, block, row, row + step, job.packed + at * std::int64_t(job.packed_block));
    }
  }
}

/// Rows past query_lengths: output 0, LSE -inf. Chunks are sequences.
void clear_unused_rows(void* context, std::int64_t b, int) {
  const Job& job = *static_cast<const Job*>(context);
  const Sequence s = sequence_of(job.problem, job.buffers, b);
  const Rows& output = job.buffers.output;
  const Scores& lse = job.buffers.lse;
  const auto bytes = std::int64_t(size_of(output.dtype));
  for (std::int64_t i = s.queries; i < s.stored_queries; ++i) {
    const std::int64_t row = s.first_query + i;
    for (std::int64_t h = 0; h < job.problem.query_heads; ++h) {
      std::memset(output.data + (b * output.batch_stride + row * output.row_stride + h * output.head_stride) * bytes, 0,
                  std::size_t(job.problem.value_dim * bytes));
      if (lse.data == nullptr) continue;
      reinterpret_cast<float*>(lse.data)[b * lse.batch_stride + h * lse.head_stride + row * lse.row_stride] =
          -__builtin_huge_valf();
    }
  }
}

/// Rows of a prefill task: as many as share a key block well, fewer where that leaves threads without work. Results do
/// not depend on it.
std::int64_t group_rows_for(const Problem& problem, const ForwardUnit& unit, const Round& round, int workers) {
  const std::int64_t sequences = round.last_batch - round.first_batch, batch = std::max<std::int64_t>(problem.batch, 1);
  const std::int64_t rows = problem.total_queries * sequences / batch * problem.group();
  const std::int64_t tiles = (rows + unit.tile_rows - 1) / unit.tile_rows;
  const std::int64_t fair = tiles * round.heads() / std::max(4 * workers, 1);
  const std::int64_t most = unit.max_tiles(int(problem.head_dim), int(problem.value_dim));
  return unit.tile_rows * std::clamp<std::int64_t>(workers > 1 ? fair : most, 1, most);
}

/// Whether a key meets more than one task: keys that a single row group reads are staged once anyway.
bool has_row_groups(const Problem& problem, const ForwardUnit& unit, int workers) {
  const std::int64_t longest = problem.packed_queries ? problem.total_queries : problem.query_length;
  return group_rows_for(problem, unit, {0, problem.batch, 0, problem.kv_heads}, workers) < longest * problem.group();
}

/// KV heads of a decode task: as many as are neighbours in memory, fewer where that leaves threads without work, and
/// where a head's rows follow one another: the hardware looks ahead in few places. Results do not depend on it.
std::int64_t decode_heads_for(const Problem& problem, const Buffers& buffers, const Decision& decision, int workers) {
  const bool rows_apart = buffers.key.row_stride > problem.head_dim;
  const std::int64_t tasks = problem.batch * decision.max_splits * problem.kv_heads;
  const std::int64_t fair = workers > 1 ? tasks / (2 * workers) : kMaxDecodeHeads;
  const std::int64_t most = rows_apart ? kMaxDecodeHeads : kMaxDecodeHeads / 2;
  return std::clamp<std::int64_t>(fair, 1, std::clamp<std::int64_t>(problem.kv_heads, 1, most));
}

constexpr double kPackedBytesPerNanosecond = 5.0;

/// A guess: by the arithmetic, or by reading keys and values once, whichever takes longer.
double nanoseconds_per_chunk(const Problem& problem, Isa isa, std::int64_t chunks) {
  constexpr double kFlopsPerNanosecond[kIsaCount] = {15, 90, 200, 300, 1000};
  constexpr double kReadBytesPerNanosecond = 20.0;
  const double batch = double(std::max<std::int64_t>(problem.batch, 1));
  const double keys = double(problem.key_length) * (problem.packed_keys ? 1.0 / batch : 1.0);
  const double diagonal = std::min(double(problem.total_queries) / batch / std::max(keys, 1.0), 1.0);
  const double elements =
      keys * double(problem.head_dim + problem.value_dim) * (problem.causal ? 1.0 - diagonal / 2 : 1.0);
  const double flops = 2.0 * double(problem.total_queries * problem.query_heads) * elements;
  const double bytes = batch * double(problem.kv_heads) * elements * double(size_of(problem.key_type));
  return std::max(flops / kFlopsPerNanosecond[int(isa)], bytes / kReadBytesPerNanosecond) /
         double(std::max<std::int64_t>(chunks, 1));
}

/// Packs the keys of job.round where asked for, then runs its tasks.
void run_round(Job& job, Executor& executor) {
  const Problem& problem = job.problem;
  const Round& round = job.round;
  const std::int64_t sequences = round.last_batch - round.first_batch;
  std::int64_t longest = 0;
  job.first_chunks[0] = 0;
  for (std::int64_t b = 0; b < sequences; ++b) {
    const Sequence s = sequence_of(problem, job.buffers, round.first_batch + b);
    job.first_chunks[b + 1] = job.first_chunks[b] + chunks_of(job, s);
    longest = std::max(longest, s.keys);
  }
  if (job.packed != nullptr) {
    const std::int64_t blocks = (longest + job.prefill.key_block - 1) / job.prefill.key_block;
    const double nanoseconds = double(job.packed_block) * double(round.heads()) / kPackedBytesPerNanosecond;
    executor.parallel_for(blocks * sequences, nanoseconds, pack_chunk, &job);
  }
  const std::int64_t chunks = job.first_chunks[sequences];
  executor.parallel_for(chunks, nanoseconds_per_chunk(problem, job.decision.isa, chunks), run_chunk, &job);
}

}  // namespace

void size_forward_workspace(const Problem& problem, Decision& decision) {
  const ForwardUnit& prefill = pick_forward_unit(decision.isa);
  const DecodeUnit& decode = pick_decode_unit(decision.isa);
  const int head_dim = int(problem.head_dim), value_dim = int(problem.value_dim);
  std::size_t bytes = 0;
  if (decision.variant == Variant::kPrefill) bytes = prefill.scratch_bytes(head_dim, value_dim);
  if (decision.decode_rows > 0) {
    const auto heads = std::size_t(std::min<std::int64_t>(problem.kv_heads, kMaxDecodeHeads));
    bytes = std::max(bytes, heads * decode.scratch_bytes(decision.decode_rows, head_dim, value_dim));
  }
  decision.worker_bytes = round_up(bytes);
  decision.shared_bytes = shared_layout(problem, decision).bytes;
}

void size_prefill(const Problem& problem, Decision& decision) {
  const ForwardUnit& unit = pick_forward_unit(decision.isa);
  decision.key_block = unit.key_block;
  decision.query_tile = unit.tile_rows;
  if (decision.packs_keys && has_row_groups(problem, unit, decision.workers)) size_packing(problem, unit, decision);
  size_forward_workspace(problem, decision);
}

void forward(const Problem& problem, const Buffers& buffers, const Decision& decision, Executor& executor,
             void* workspace) {
  if (problem.new_length > 0) append(problem, buffers, executor);

  char* const shared = static_cast<char*>(workspace);
  const SharedLayout layout = shared_layout(problem, decision);
  Job job{.problem = problem,
          .buffers = buffers,
          .decision = decision,
          .prefill = pick_forward_unit(decision.isa),
          .decode = pick_decode_unit(decision.isa),
          .query = buffers.query,
          .output = buffers.output,
          .lse = problem.has_lse ? buffers.lse : Scores{},
          .part_stride = 0,
          .part_lse_stride = 0,
          .group_rows = 0,
          .decode_heads = 1,
          .round = {},
          .first_chunks = reinterpret_cast<std::int64_t*>(shared + layout.first_chunks),
          .packed = decision.packed_heads > 0 ? shared + layout.packed : nullptr,
          .packed_block = packed_block_bytes(problem, pick_forward_unit(decision.isa)),
          .scratch = shared + layout.bytes};
  if (problem.rotary_dim > 0) job.query = rotate_queries(problem, buffers, executor, shared + layout.rotated);
  const int workers = std::min(executor.concurrency(), decision.workers);
  job.decode_heads = decode_heads_for(problem, buffers, decision, workers);

  const std::int64_t heads = problem.query_heads, rows = problem.total_queries;
  const std::int64_t batch_rows = problem.packed_queries ? rows : problem.query_length;
  MergeProblem parts{};
  if (decision.max_splits > 1) {
    parts.splits = decision.max_splits;
    parts.batch = problem.packed_queries ? 1 : problem.batch;
    parts.rows = batch_rows;
    parts.heads = heads;
    parts.value_dim = problem.value_dim;
    parts.parts = {.data = shared + layout.part_outputs,
                   .dtype = DataType::kFloat32,
                   .batch_stride = problem.packed_queries ? 0 : batch_rows * heads * problem.value_dim,
                   .row_stride = heads * problem.value_dim,
                   .head_stride = problem.value_dim};
    parts.part_lses = {.data = shared + layout.part_lses,
                       .dtype = DataType::kFloat32,
                       .batch_stride = problem.packed_queries ? 0 : heads * batch_rows,
                       .head_stride = batch_rows,
                       .row_stride = 1};
    parts.part_stride = rows * heads * problem.value_dim;
    parts.part_lse_stride = rows * heads;
    parts.output = job.output;
    parts.lse = job.lse;
    job.output = parts.parts;
    job.lse = parts.part_lses;
    job.part_stride = parts.part_stride;
    job.part_lse_stride = parts.part_lse_stride;
    // Sequences may have fewer splits than the longest one: a part without weight is never read.
    auto* const lses = reinterpret_cast<float*>(parts.part_lses.data);
    std::fill(lses, lses + parts.splits * parts.part_lse_stride, -__builtin_huge_valf());
  }

  if (!has_row_groups(problem, job.prefill, workers)) job.packed = nullptr;  // fewer workers than planned
  const std::int64_t sequences = job.packed != nullptr ? decision.packed_sequences : problem.batch;
  const std::int64_t kv_heads = job.packed != nullptr ? decision.packed_heads : problem.kv_heads;
  for (std::int64_t b = 0; b < problem.batch; b += sequences) {
    for (std::int64_t head = 0; head < problem.kv_heads; head += kv_heads) {
      job.round = {b, std::min(b + sequences, problem.batch), head, std::min(head + kv_heads, problem.kv_heads)};
      job.group_rows = group_rows_for(problem, job.prefill, job.round, workers);
      run_round(job, executor);
    }
  }
  if (parts.splits > 0) merge(parts, executor);
  if (problem.has_query_lengths) executor.parallel_for(problem.batch, 1000.0, clear_unused_rows, &job);
}

}  // namespace strobe::cpu
