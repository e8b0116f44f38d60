// Backward driver: zeroes the gradients, works out the facts of each row, cuts the scores into rectangles that can be
// worked on at the same time, and rounds 16-bit gradients at the end. Scalar code; the kernel is in unit.cpp.
//
// Keys and queries of a sequence are cut into the same number n of chunks. Step s handles the rectangles (key chunk c,
// query chunk (c + s) mod n) of all sequences and KV heads at once: no two of them touch the same row of any gradient,
// so all add to float32 memory without locks or partial copies, in an order that does not depend on the threads. n
// depends on the sequence's own lengths and the number of heads alone.
#include <algorithm>
#include <cstring>

#include "cpu/backward/layout.hpp"
#include "cpu/cpu.hpp"
#include "cpu/sequence.hpp"

namespace strobe::cpu {
namespace {

constexpr std::int64_t kFar = std::int64_t(1) << 40;  // no bound on one side of the window
constexpr std::int64_t kChunkRows = 1024;             // a chunk is at least this long: its keys are staged once
constexpr std::int64_t kMaxChunks = 8;
constexpr std::int64_t kTasksPerSequence = 32;  // enough for any machine; more only cost staging
constexpr std::int64_t kRowsPerTask = 256;      // zeroing and rounding
constexpr double kFlopsPerNanosecond = 100.0;

/// A gradient tensor and the float32 memory that sums it: the tensor itself when it is float32.
struct Sum {
  Rows result, sum;
  std::int64_t batch, rows, heads, dim;
};

/// Everything that the chunks of one call share.
struct Call {
  const Problem& problem;
  const Buffers& buffers;
  const Decision& decision;
  Executor& executor;
  const BackwardUnit& unit;
  BackwardLayout layout;
  SharedLayout shared_layout;
  char* workspace;
  Sum query, key, value;
  Scores grad_bias;  // float32
  BiasShape bias;

  float* shared(std::int64_t offset) const {
    return reinterpret_cast<float*>(workspace + decision.workers * decision.worker_bytes) + offset;
  }
  std::int64_t facts_stride() const { return problem.query_length; }
  std::int64_t first_fact(const Sequence& s) const {
    return problem.packed_queries ? s.first_query : s.batch * problem.query_heads * problem.query_length;
  }
};

template <typename Body>
void run_chunks(Executor& executor, std::int64_t chunks, double nanoseconds, const Body& body) {
  executor.parallel_for(
      chunks, nanoseconds,
      [](void* context, std::int64_t chunk, int worker) { (*static_cast<const Body*>(context))(chunk, worker); },
      const_cast<Body*>(&body));
}

Sum sum_of(const Rows& result, float* memory, bool packed, std::int64_t batch, std::int64_t rows, std::int64_t heads,
           std::int64_t dim) {
  Sum sum{result, result, packed ? 1 : batch, rows, heads, dim};
  if (result.data && result.dtype != DataType::kFloat32) {
    // [batch, heads, rows, dim]: a task goes through the rows of one head.
    sum.sum = {reinterpret_cast<char*>(memory), DataType::kFloat32, rows * heads * dim, dim, rows * dim};
  }
  return sum;
}

float* element(const Rows& rows, std::int64_t b, std::int64_t row, std::int64_t head) {
  return reinterpret_cast<float*>(rows.data) + b * rows.batch_stride + row * rows.row_stride + head * rows.head_stride;
}

/// Rows of a tensor from `row` on, as a unit sees them.
TaskRows task_rows(const Rows& rows, std::int64_t b, std::int64_t row, std::int64_t head) {
  if (!rows.data) return {};
  const std::int64_t offset = b * rows.batch_stride + row * rows.row_stride + head * rows.head_stride;
  return {rows.data + offset * std::int64_t(size_of(rows.dtype)), rows.dtype, rows.row_stride, rows.head_stride};
}

TaskScores task_scores(const Scores& scores, std::int64_t b, std::int64_t head) {
  if (!scores.data) return {};
  const std::int64_t offset = b * scores.batch_stride + head * scores.head_stride;
  return {scores.data + offset * std::int64_t(size_of(scores.dtype)), scores.dtype, scores.head_stride,
          scores.row_stride, scores.column_stride};
}

/// Every row of every sequence, in use or not, in groups: body(b, first row, past the last row).
template <typename Body>
void for_row_groups(Executor& executor, const Sum& sum, const Body& body) {
  const std::int64_t groups = (sum.rows + kRowsPerTask - 1) / kRowsPerTask;
  const double nanoseconds = double(kRowsPerTask * sum.heads * sum.dim) * 0.2;
  run_chunks(executor, sum.batch * groups, nanoseconds, [&](std::int64_t chunk, int) {
    const std::int64_t first = chunk % groups * kRowsPerTask;
    body(chunk / groups, first, std::min(first + kRowsPerTask, sum.rows));
  });
}

void zero_sum(const Call& call, const Sum& sum) {
  if (!sum.result.data) return;
  for_row_groups(call.executor, sum, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      for (std::int64_t head = 0; head < sum.heads; ++head) {
        std::memset(element(sum.sum, b, row, head), 0, std::size_t(sum.dim) * sizeof(float));
      }
    }
  });
}

void round_sum(const Call& call, const Sum& sum) {
  if (sum.result.data == sum.sum.data) return;
  for_row_groups(call.executor, sum, [&](std::int64_t b, std::int64_t first, std::int64_t last) {
    for (std::int64_t head = 0; head < sum.heads; ++head) {
      call.unit.round_rows({.rows = last - first,
                            .dim = int(sum.dim),
                            .from = task_rows(sum.sum, b, first, head),
                            .to = task_rows(sum.result, b, first, head)});
    }
  });
}

/// Visits the rows of the bias gradient: body(b, h, i).
template <typename Body>
void for_bias_rows(const Call& call, const Body& body) {
  const BiasShape& shape = call.bias;
  run_chunks(call.executor, shape.batch * shape.heads, double(shape.queries * shape.keys) * 0.2,
             [&](std::int64_t chunk, int) {
               for (std::int64_t i = 0; i < shape.queries; ++i) body(chunk / shape.heads, chunk % shape.heads, i);
             });
}

void zero_grad_bias(const Call& call) {
  const Scores& sum = call.grad_bias;
  const std::int64_t keys = call.bias.keys;
  for_bias_rows(call, [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    float* row = reinterpret_cast<float*>(sum.data) + b * sum.batch_stride + h * sum.head_stride + i * sum.row_stride;
    for (std::int64_t j = 0; j < keys; ++j) row[j * sum.column_stride] = 0.0f;
  });
}

void round_grad_bias(const Call& call) {
  if (call.grad_bias.data == call.buffers.grad_bias.data) return;
  const std::int64_t keys = call.bias.keys;
  for_bias_rows(call, [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    TaskScores from = task_scores(call.grad_bias, b, h), to = task_scores(call.buffers.grad_bias, b, h);
    from.data += i * from.row_stride * std::int64_t(sizeof(float));
    to.data += i * to.row_stride * std::int64_t(size_of(to.type));
    call.unit.round_rows(
        {.rows = 1, .dim = int(keys), .from = {from.data, from.type, 0, 0}, .to = {to.data, to.type, 0, 0}});
  });
}

void find_row_facts(const Call& call) {
  const Problem& problem = call.problem;
  const Buffers& buffers = call.buffers;
  const double nanoseconds = double(problem.query_length * problem.value_dim) * 0.2;
  run_chunks(call.executor, problem.batch * problem.query_heads, nanoseconds, [&](std::int64_t chunk, int) {
    const std::int64_t b = chunk / problem.query_heads, head = chunk % problem.query_heads;
    const Sequence s = sequence_of(problem, buffers, b);
    const std::int64_t row_b = problem.packed_queries ? 0 : b;
    const std::int64_t facts = call.first_fact(s) + head * call.facts_stride();
    const auto row_values = [&](const Scores& scores) {
      return reinterpret_cast<const float*>(scores.data) + b * scores.batch_stride + head * scores.head_stride +
             s.first_query * scores.row_stride;
    };
    call.unit.row_facts(
        {.queries = s.queries,
         .value_dim = int(problem.value_dim),
         .output = task_rows(buffers.output, row_b, s.first_query, head),
         .grad_output = task_rows(buffers.grad_output, row_b, s.first_query, head),
         .lse = row_values(buffers.lse),
         .grad_lse = problem.has_grad_lse ? row_values(buffers.grad_lse) : nullptr,
         .lse_stride = buffers.lse.row_stride,
         .grad_lse_stride = buffers.grad_lse.row_stride,
         .sink = problem.has_sink ? reinterpret_cast<const float*>(buffers.sink.data) + head * buffers.sink.stride
                                  : nullptr,
         .lse_out = call.shared(call.shared_layout.lse) + facts,
         .delta_out = call.shared(call.shared_layout.delta) + facts,
         .grad_sink = problem.wants_grad_sink ? call.shared(call.shared_layout.grad_sink) + chunk : nullptr});
  });
  if (!problem.wants_grad_sink) return;
  for (std::int64_t head = 0; head < problem.query_heads; ++head) {
    double total = 0.0;
    for (std::int64_t b = 0; b < problem.batch; ++b) {
      total += double(call.shared(call.shared_layout.grad_sink)[b * problem.query_heads + head]);
    }
    reinterpret_cast<float*>(buffers.grad_sink.data)[head * buffers.grad_sink.stride] = float(total);
  }
}

/// Chunks of queries, and of keys, of one sequence. A bias gradient that sums over queries and keys has one owner.
std::int64_t chunks_of(const Problem& problem, const Sequence& s) {
  if (problem.wants_grad_bias && problem.bias_broadcasts[2] && problem.bias_broadcasts[3]) return 1;
  const std::int64_t most = std::clamp<std::int64_t>(kTasksPerSequence / problem.kv_heads, 1, kMaxChunks);
  return std::clamp<std::int64_t>(std::min(s.queries, s.keys) / kChunkRows, 1, most);
}

BackwardTask task_of(const Call& call, const Sequence& s, std::int64_t kv_head, int worker) {
  const Problem& problem = call.problem;
  const Buffers& buffers = call.buffers;
  const std::int64_t group = problem.group(), head = kv_head * group;
  const std::int64_t query_b = problem.packed_queries ? 0 : s.batch, key_b = problem.packed_keys ? 0 : s.batch;
  const std::int64_t facts = call.first_fact(s) + head * call.facts_stride();
  BackwardTask task{};
  task.queries = s.queries;
  task.keys = s.keys;
  task.position_shift = s.position_shift;
  task.left = problem.window_left == kUnbounded ? kFar : problem.window_left;
  task.right = problem.window_right == kUnbounded ? kFar : problem.window_right;
  if (problem.causal) task.right = std::min<std::int64_t>(task.right, 0);
  task.prefix = s.prefix;
  task.head_dim = int(problem.head_dim);
  task.value_dim = int(problem.value_dim);
  task.group = int(group);
  task.scale = problem.scale;
  task.softcap = problem.softcap;

  task.query = task_rows(buffers.query, query_b, s.first_query, head);
  task.grad_output = task_rows(buffers.grad_output, query_b, s.first_query, head);
  task.grad_query = task_rows(call.query.sum, query_b, s.first_query, head);
  task.key = task_rows(buffers.key, key_b, s.first_key, kv_head);
  task.value = task_rows(buffers.value, key_b, s.first_key, kv_head);
  task.grad_key = task_rows(call.key.sum, key_b, s.first_key, kv_head);
  task.grad_value = task_rows(call.value.sum, key_b, s.first_key, kv_head);
  task.lse = call.shared(call.shared_layout.lse) + facts;
  task.delta = call.shared(call.shared_layout.delta) + facts;
  task.row_facts_stride = call.facts_stride();

  if (problem.has_bias) task.bias = task_scores(buffers.bias, s.batch, head);
  if (problem.wants_grad_bias) task.grad_bias = task_scores(call.grad_bias, s.batch, head);
  if (problem.has_mask) task.mask = task_scores(buffers.mask, s.batch, head);
  if (problem.has_block_mask) task.block_mask = task_scores(buffers.block_mask, s.batch, head);
  task.block_rows = problem.block_rows;
  task.block_columns = problem.block_columns;
  if (problem.has_alibi) {
    const Vectors& slopes = buffers.alibi_slopes;
    task.slopes = reinterpret_cast<const float*>(slopes.data) + s.batch * slopes.batch_stride + head * slopes.stride;
    task.slope_stride = slopes.stride;
  }
  if (problem.has_documents) {
    const auto documents = [&](const Vectors& vectors, std::int64_t first) {
      return reinterpret_cast<const std::int32_t*>(vectors.data) + s.batch * vectors.batch_stride +
             first * vectors.stride;
    };
    task.query_documents = documents(buffers.query_documents, s.first_query);
    task.query_document_stride = buffers.query_documents.stride;
    task.key_documents = documents(buffers.key_documents, s.first_key);
    task.key_document_stride = buffers.key_documents.stride;
  }
  task.drops = problem.dropout > 0.0f;
  task.keep_threshold = std::uint32_t(double(problem.dropout) * 4294967296.0);
  task.keep_factor = 1.0f / (1.0f - problem.dropout);
  task.dropout_seed = problem.dropout_seed;
  task.dropout_stream = problem.dropout_offset + std::uint64_t(s.batch * problem.query_heads + head);

  task.layout = &call.layout;
  task.scratch = reinterpret_cast<float*>(call.workspace + worker * call.decision.worker_bytes);
  return task;
}

/// The rectangle (key chunk, query chunk) of one sequence and KV head. Keys that no query reaches are left alone.
void run_rectangle(const Call& call, const Sequence& s, std::int64_t kv_head, std::int64_t chunks,
                   std::int64_t key_chunk, std::int64_t query_chunk, int worker) {
  BackwardTask task = task_of(call, s, kv_head, worker);
  const std::int64_t queries = round_up((s.queries + chunks - 1) / chunks, call.layout.query_tile);
  const std::int64_t keys = round_up((s.keys + chunks - 1) / chunks, call.layout.key_block);
  const std::int64_t reached = std::max(s.prefix, s.queries + s.position_shift + task.right);
  task.query_begin = query_chunk * queries;
  task.query_end = std::min(task.query_begin + queries, s.queries);
  task.key_begin = key_chunk * keys;
  task.key_end = std::min({task.key_begin + keys, s.keys, reached});
  if (task.query_begin < task.query_end && task.key_begin < task.key_end) call.unit.gradients(task);
}

/// Sequences [first, last) and KV heads [first, last) whose rectangles may run at the same time.
struct Round {
  std::int64_t first_batch, last_batch, first_head, last_head;
};

void run_round(const Call& call, const Round& round) {
  const Problem& problem = call.problem;
  std::int64_t steps = 1;
  for (std::int64_t b = round.first_batch; b < round.last_batch; ++b) {
    steps = std::max(steps, chunks_of(problem, sequence_of(problem, call.buffers, b)));
  }
  const std::int64_t heads = round.last_head - round.first_head;
  const double flops = 10.0 * double(problem.group() * problem.query_length * problem.key_length) *
                       double(problem.head_dim + problem.value_dim) / (2.0 * double(steps * steps));
  for (std::int64_t step = 0; step < steps; ++step) {
    run_chunks(call.executor, (round.last_batch - round.first_batch) * heads * steps, flops / kFlopsPerNanosecond,
               [&](std::int64_t index, int worker) {
                 const std::int64_t chunk = index % steps, head = round.first_head + index / steps % heads;
                 const Sequence s = sequence_of(problem, call.buffers, round.first_batch + index / steps / heads);
                 const std::int64_t chunks = chunks_of(problem, s);
                 if (step >= chunks || chunk >= chunks) return;
                 run_rectangle(call, s, head, chunks, chunk, (chunk + step) % chunks, worker);
               });
  }
}

/// A bias gradient that sums over sequences or heads takes them one after another.
void run_rounds(const Call& call) {
  const Problem& problem = call.problem;
  const bool each_batch = problem.wants_grad_bias && problem.bias_broadcasts[0];
  const bool each_head = problem.wants_grad_bias && problem.bias_broadcasts[1];
  const std::int64_t batches = each_batch ? 1 : problem.batch, heads = each_head ? 1 : problem.kv_heads;
  for (std::int64_t b = 0; b < problem.batch; b += batches) {
    for (std::int64_t head = 0; head < problem.kv_heads; head += heads) {
      run_round(call, {b, b + batches, head, head + heads});
    }
  }
}

Scores grad_bias_sum(const Problem& problem, const BiasShape& shape, const Scores& result, float* memory) {
  if (result.dtype == DataType::kFloat32) return result;
  const bool(&broadcasts)[4] = problem.bias_broadcasts;
  return {reinterpret_cast<char*>(memory),
          DataType::kFloat32,
          broadcasts[0] ? 0 : shape.heads * shape.queries * shape.keys,
          broadcasts[1] ? 0 : shape.queries * shape.keys,
          broadcasts[2] ? 0 : shape.keys,
          broadcasts[3] ? 0 : 1};
}

}  // namespace

void size_backward(const Problem& problem, Decision& decision) {
  const BackwardLayout layout = layout_of(problem, pick_backward_unit(decision.isa));
  decision.key_block = layout.key_block;
  decision.query_tile = layout.query_tile;
  decision.worker_bytes = std::size_t(layout.floats) * sizeof(float);
  decision.shared_bytes = std::size_t(shared_layout_of(problem).floats) * sizeof(float);
}

void backward(const Problem& problem, const Buffers& buffers, const Decision& decision, Executor& executor,
              void* workspace) {
  const BackwardUnit& unit = pick_backward_unit(decision.isa);
  Call call{.problem = problem,
            .buffers = buffers,
            .decision = decision,
            .executor = executor,
            .unit = unit,
            .layout = layout_of(problem, unit),
            .shared_layout = shared_layout_of(problem),
            .workspace = static_cast<char*>(workspace),
            .query = {},
            .key = {},
            .value = {},
            .grad_bias = {},
            .bias = {}};
  const SharedLayout& shared = call.shared_layout;
  call.query =
      sum_of(problem.wants_grad_query ? buffers.grad_query : Rows{}, call.shared(shared.grad_query),
             problem.packed_queries, problem.batch, problem.query_length, problem.query_heads, problem.head_dim);
  call.key = sum_of(problem.wants_grad_key ? buffers.grad_key : Rows{}, call.shared(shared.grad_key),
                    problem.packed_keys, problem.batch, problem.key_length, problem.kv_heads, problem.head_dim);
  call.value = sum_of(problem.wants_grad_value ? buffers.grad_value : Rows{}, call.shared(shared.grad_value),
                      problem.packed_keys, problem.batch, problem.key_length, problem.kv_heads, problem.value_dim);
  zero_sum(call, call.query);
  zero_sum(call, call.key);
  zero_sum(call, call.value);
  if (problem.wants_grad_bias) {
    call.bias = bias_shape(problem, buffers);
    call.grad_bias = grad_bias_sum(problem, call.bias, buffers.grad_bias, call.shared(shared.grad_bias));
    zero_grad_bias(call);
  }
  find_row_facts(call);
  const bool wants_rows = problem.wants_grad_query || problem.wants_grad_key || problem.wants_grad_value;
  if (wants_rows || problem.wants_grad_bias) run_rounds(call);
  round_sum(call, call.query);
  round_sum(call, call.key);
  round_sum(call, call.value);
  if (problem.wants_grad_bias) round_grad_bias(call);
}

}  // namespace strobe::cpu
