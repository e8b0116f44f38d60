// Exact attention, forward and backward: softmax(scale * Q K^T + bias, masked) V by tiles, memory linear in length.
// The method is FlashAttention's (arXiv 2205.14135, algorithms 1 and 4; 2307.08691, section 3.1).
// docs/options.md says what every option means; the options' names are used by C, Python and the command line too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "strobe/device.hpp"
#include "strobe/executor.hpp"
#include "strobe/types.hpp"

namespace strobe {

/// Where query i stands among the keys: p_i = i + key_length - query_length (bottom right: the last query
/// sees the last key) or p_i = i (top left).
enum class Alignment : std::int32_t { kBottomRight = 0, kTopLeft = 1 };

/// How rotary pairs lie in a head: (0,1), (2,3), ... or (0, n/2), (1, n/2 + 1), ...
enum class RotaryStyle : std::int32_t { kInterleaved = 0, kHalves = 1 };

/// One attention problem: its input tensors and options. Only query, key and value are required.
///
/// Any strides are accepted as long as the innermost is 1. Query head h reads KV head
/// h / (query_heads / kv_heads). "Packed" means sequences of different lengths laid end to end.
struct Attention {
  Tensor query{};  ///< [batch, query_length, query_heads, head_dim]; packed [total_queries, query_heads, head_dim].
                   ///< float32, float16, bfloat16, float8 (forward only)
  Tensor key{};    ///< [batch, key_length, kv_heads, head_dim]; packed [total_keys, kv_heads, head_dim];
                   ///< cache [cache_batch, capacity, kv_heads, head_dim];
                   ///< paged cache [pages, page_size, kv_heads, head_dim] with page_table
  Tensor value{};  ///< as key, with value_dim

  // Lengths.
  Tensor query_offsets{};  ///< [batch + 1] int32 prefix sums: packed queries
  Tensor key_offsets{};    ///< [batch + 1] int32 prefix sums: packed keys
  Tensor query_lengths{};  ///< [batch] int32, queries in use; rows beyond come out as zero, LSE -inf
  Tensor key_lengths{};    ///< [batch] int32, keys in use; memory beyond is never used

  // Scores.
  std::optional<float> scale{};  ///< default 1 / sqrt(head_dim)
  float softcap = 0.0f;          ///< c > 0: s = c tanh(s / c)
  Tensor bias{};                 ///< [batch|1, query_heads|1, query_length|1, key_length|1], float32 or query's type
  Tensor alibi_slopes{};         ///< [query_heads] or [batch, query_heads] float32: s -= slope |p_i - j|
  Tensor sink{};                 ///< [query_heads] float32: a logit that takes weight and has no value

  // Visibility: the conjunction of whatever is given.
  bool causal = false;                         ///< j <= p_i
  std::optional<std::int64_t> window_left{};   ///< p_i - left <= j
  std::optional<std::int64_t> window_right{};  ///< j <= p_i + right
  Alignment alignment = Alignment::kBottomRight;
  std::int64_t prefix_length = 0;  ///< keys j < prefix_length are exempt from causal and window
  Tensor prefix_lengths{};         ///< [batch] int32, instead of prefix_length
  Tensor query_documents{};        ///< [batch, query_length] or packed [total_queries] int32
  Tensor key_documents{};          ///< [batch, key_length] or packed [total_keys] int32;
                                   ///< not given: query_documents serves both
  Tensor mask{};                   ///< [batch|1, query_heads|1, query_length|1, key_length|1] bool, true is visible
  Tensor block_mask{};             ///< [batch|1, query_heads|1, ceil(query_length / block_rows),
                                   ///< ceil(key_length / block_columns)] bool; empty tiles cost nothing
  std::int64_t block_rows = 0, block_columns = 0;

  // Dropout on the probabilities: Philox-4x32-10 (Salmon et al., SC 2011) of (seed, offset, b, h, i, j).
  float dropout = 0.0f;  ///< in [0, 1)
  std::uint64_t dropout_seed = 0, dropout_offset = 0;

  // Caches.
  Tensor cache_batch_index{};         ///< [batch] int32: the cache row that serves sequence b
  Tensor page_table{};                ///< [batch, pages_per_sequence] int32
  Tensor new_key{}, new_value{};      ///< [batch, new_length, kv_heads, head_dim | value_dim], written to the cache at
                                      ///< key_lengths[b]... before attention, which then sees them
  Tensor rotary_cos{}, rotary_sin{};  ///< [positions, rotary_dim / 2] float32 or query's type
  RotaryStyle rotary_style = RotaryStyle::kInterleaved;

  // float8 inputs: the stored value times its factor is the value meant.
  Tensor query_descale{}, key_descale{}, value_descale{};  ///< [1] or [batch, kv_heads] float32

  // Execution. These change speed, never meaning.
  std::int32_t splits = 0;       ///< workers that share the keys of one query; 0 chooses
  bool batch_invariant = false;  ///< same bits for a sequence whatever else is in the batch
  bool deterministic = true;     ///< backward: same bits when run twice
};

/// What forward writes.
struct ForwardOutputs {
  Tensor output{};  ///< as query, with value_dim; query's type or float32 (float8 inputs: any 16- or 32-bit float)
  Tensor lse{};     ///< optional [batch, query_heads, query_length]; packed [query_heads, total_queries]; float32
};

/// What backward needs from the forward pass and from upstream.
struct BackwardInputs {
  Tensor output{};       ///< forward's output
  Tensor lse{};          ///< forward's lse
  Tensor grad_output{};  ///< as output
  Tensor grad_lse{};     ///< optional, as lse
};

/// What backward writes. Each is optional; at least one must be given.
struct Gradients {
  Tensor query{}, key{}, value{};  ///< as the inputs, in the inputs' type or float32
  Tensor bias{};                   ///< the bias's own shape (broadcast axes are summed), float32 or the bias's type
  Tensor sink{};                   ///< [query_heads] float32
};

/// How to run a call. Everything is optional.
///
/// On the CPU results are there when the call returns. On CUDA every tensor's data (offsets, lengths and page tables
/// too) is device memory; the call puts kernels on `stream` and returns, and results are ready when the stream has come
/// that far. Nothing synchronises, so calls can be captured into a CUDA graph. What index tensors hold is not read by
/// the host there: that they keep to their rules (offsets rise, lengths fit, pages exist, no page is appended to twice)
/// is the caller's promise. A broken one never leads outside the tensors, but to values that mean nothing.
struct Execution {
  Executor* executor = nullptr;  ///< CPU; nullptr: default_executor()
  void* workspace = nullptr;     ///< memory of the device; nullptr: found for the call (CUDA: from the stream's pool)
  std::size_t workspace_bytes = 0;  ///< at least Plan::workspace_bytes() when workspace is given, which is aligned to
                                    ///< 64 bytes (CUDA: 256)
  Device device{};
  void* stream = nullptr;  ///< CUDA: cudaStream_t or CUstream of `device`; nullptr: the default stream
};

/// @throws Error naming the argument, what it was and what it must be; outputs are untouched then.
STROBE_API void forward(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution = {});

/// @throws Error as forward does. Caches and rotary have no gradient and are refused.
STROBE_API void backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
                         const Execution& execution = {});

/// Writes attention.new_key and new_value into the cache (with rotary, when given) without attending.
/// Needs key, value (the cache), key_lengths, new_key, new_value; query is not used.
STROBE_API void append(const Attention& attention, const Execution& execution = {});

/// The result over the union of disjoint key sets from the results over each of them.
/// outputs [splits, batch, query_length, query_heads, value_dim], lses [splits, batch, query_heads, query_length]
/// float32; packed: [splits, total_queries, query_heads, value_dim] and [splits, query_heads, total_queries].
/// A row with LSE -inf in every part gives zero and -inf.
STROBE_API void merge(const Tensor& outputs, const Tensor& lses, const ForwardOutputs& merged,
                      const Execution& execution = {});

/// softmax along one axis by the online method (Milakov and Gimelshein, arXiv 1805.02867), any axis length.
/// input and output: the same shape (rank 1..5, any strides), float32, float16 or bfloat16; axis may be negative.
/// A row of only -inf gives zeros.
STROBE_API void softmax(const Tensor& input, const Tensor& output, int axis = -1, const Execution& execution = {});

/// grad_input = output * (grad_output - sum(output * grad_output)) along the axis.
STROBE_API void softmax_backward(const Tensor& output, const Tensor& grad_output, const Tensor& grad_input,
                                 int axis = -1, const Execution& execution = {});

/// What will run for a problem: kernel, tiles, splits, workspace. Cheap to make, immutable, shareable.
/// Planning looks at shapes, types and options only: the tensors' data may be null.
class STROBE_API Plan {
 public:
  struct Contents;

  const char* kernel() const;           ///< "cpu.forward.avx512", "cuda.sm80.forward"
  const char* why() const;              ///< one sentence: why this kernel
  std::size_t workspace_bytes() const;  ///< for the executor or device it was planned with
  std::int64_t split_keys() const;      ///< keys per split; 0 when keys are not split
  int key_block() const;                ///< keys per block of the main loop
  int query_tile() const;               ///< query rows per tile
  /// Several lines: the choice, tiles, splits, workspace, and each rejected candidate with its reason.
  std::string explain() const;

  /// Runs a forward plan. The problem must be the planned one but for data pointers and their contents, the device the
  /// planned one; the stream is free.
  void run(const Attention& attention, const ForwardOutputs& outputs, const Execution& execution = {}) const;
  /// Runs a backward plan.
  void run(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
           const Execution& execution = {}) const;

 private:
  friend STROBE_API Plan plan_forward(const Attention&, const ForwardOutputs&, const Execution&);
  friend STROBE_API Plan plan_backward(const Attention&, const BackwardInputs&, const Gradients&, const Execution&);
  std::shared_ptr<const Contents> contents_;
};

/// Plans for execution.device and, on the CPU, execution.executor. On CUDA the plan's kernels are loaded, and compiled
/// if need be, so that running it does neither.
/// @throws Error as forward does, and kUnsupported where no kernel of the device serves the problem.
STROBE_API Plan plan_forward(const Attention& attention, const ForwardOutputs& outputs,
                             const Execution& execution = {});
STROBE_API Plan plan_backward(const Attention& attention, const BackwardInputs& inputs, const Gradients& gradients,
                              const Execution& execution = {});

}  // namespace strobe
