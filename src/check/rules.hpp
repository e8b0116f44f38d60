// The rules about one attention call, subject by subject. Each function checks its arguments' shapes, types and options
// and fills its part of the Problem and the Buffers. check_contents comes last and is the only one that reads data.
#pragma once

#include "check/facts.hpp"
#include "check/overlap.hpp"

namespace strobe::check {

/// One call on its way from arguments to a Problem.
struct Inspection {
  const Attention& attention;
  Data data;
  Checked checked{};

  Problem& problem() { return checked.problem; }
  Buffers& buffers() { return checked.buffers; }
  const Problem& problem() const { return checked.problem; }
};

/// query, key, value, and whether they are packed; batch, heads, dims and lengths come from them.
void check_tensors(Inspection& call);
/// The cache that an append writes: key, value, and the batch from key_lengths.
void check_append_tensors(Inspection& call);
void check_outputs(Inspection& call, const ForwardOutputs& outputs);
void check_upstream(Inspection& call, const BackwardInputs& inputs);
void check_gradients(Inspection& call, const Gradients& gradients);

/// query_lengths, key_lengths, and that the offsets are int32 [batch + 1].
void check_lengths(Inspection& call);
/// scale, softcap, bias, alibi_slopes, sink, dropout, descale factors.
void check_scores(Inspection& call);
/// causal, window, alignment, prefix, documents, mask, block_mask.
void check_visibility(Inspection& call);
/// cache_batch_index, page_table (its shape), new_key, new_value, rotary.
void check_caches(Inspection& call);
/// Backward's rule about them.
void refuse_caches(const Attention& attention);
/// [batch | 1, query_heads | 1, query_length | 1, key_length | 1]; packed sequences are judged by check_contents.
void expect_scores_shape(const char* argument, const Tensor& tensor, const Inspection& call);

/// What the offsets, lengths, page tables and cache indices hold. Call only where the host can read them.
void check_contents(const Inspection& call);

// Translation. Axes of size 1 and empty tensors get stride 0, so a stride that means nothing never enters an address.
inline std::int64_t used_stride(const Tensor& tensor, int axis) {
  return tensor.shape[axis] > 1 && !is_empty(tensor) ? tensor.strides[axis] : 0;
}

/// [batch, length, heads, dim], or packed [rows, heads, dim].
inline Rows rows_of(const Tensor& tensor) {
  if (!tensor.given()) return {};
  const int length = tensor.rank - 3;
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = length > 0 ? used_stride(tensor, 0) : 0,
          .row_stride = used_stride(tensor, length),
          .head_stride = used_stride(tensor, length + 1)};
}

/// [batch, heads, i, j].
inline Scores scores_of(const Tensor& tensor) {
  if (!tensor.given()) return {};
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = used_stride(tensor, 0),
          .head_stride = used_stride(tensor, 1),
          .row_stride = used_stride(tensor, 2),
          .column_stride = used_stride(tensor, 3)};
}

/// [batch, heads, i], or packed [heads, i].
inline Scores row_scores_of(const Tensor& tensor) {
  if (!tensor.given()) return {};
  const int heads = tensor.rank - 2;
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = heads > 0 ? used_stride(tensor, 0) : 0,
          .head_stride = used_stride(tensor, heads),
          .row_stride = used_stride(tensor, heads + 1)};
}

/// [batch] integers: the stride goes from sequence to sequence.
inline Vectors integers_of(const Tensor& tensor) {
  if (!tensor.given()) return {};
  return {.data = static_cast<char*>(tensor.data), .dtype = tensor.dtype, .batch_stride = used_stride(tensor, 0)};
}

/// [batch, n], or [n] for every sequence.
inline Vectors vectors_of(const Tensor& tensor) {
  if (!tensor.given()) return {};
  const int last = tensor.rank - 1;
  return {.data = static_cast<char*>(tensor.data),
          .dtype = tensor.dtype,
          .batch_stride = last > 0 ? used_stride(tensor, 0) : 0,
          .stride = used_stride(tensor, last)};
}

}  // namespace strobe::check
