// What the checks find depends on shapes, strides, types and options; on addresses only by their alignment to 16 bytes
// (Problem::regular_rows), by whether there is one, and by whether outputs share memory with other tensors.
#include "check/repeat.hpp"

namespace strobe::check {
namespace {

constexpr std::uintptr_t kAlignment = 16;

/// Whether `test` holds for each tensor of a call: by its number, and with its address in Buffers.
template <typename Test>
bool all_tensors(const Attention& a, const ForwardOutputs& outputs, Buffers& b, const Test& test) {
  int place = 0;
  const auto next = [&](const Tensor& tensor, auto& buffer) { return test(place++, tensor, buffer.data); };
  return next(a.query, b.query) && next(a.key, b.key) && next(a.value, b.value) && next(outputs.output, b.output) &&
         next(outputs.lse, b.lse) && next(a.query_offsets, b.query_offsets) && next(a.key_offsets, b.key_offsets) &&
         next(a.query_lengths, b.query_lengths) && next(a.key_lengths, b.key_lengths) && next(a.bias, b.bias) &&
         next(a.alibi_slopes, b.alibi_slopes) && next(a.sink, b.sink) && next(a.prefix_lengths, b.prefix_lengths) &&
         next(a.query_documents, b.query_documents) && next(a.key_documents, b.key_documents) && next(a.mask, b.mask) &&
         next(a.block_mask, b.block_mask) && next(a.cache_batch_index, b.cache_batch_index) &&
         next(a.page_table, b.page_table) && next(a.new_key, b.new_key) && next(a.new_value, b.new_value) &&
         next(a.rotary_cos, b.rotary_cos) && next(a.rotary_sin, b.rotary_sin) &&
         next(a.query_descale, b.query_descale) && next(a.key_descale, b.key_descale) &&
         next(a.value_descale, b.value_descale);
}

bool same_sizes(const std::int64_t* a, const std::int64_t* b, int rank) {
  for (int axis = 0; axis < rank; ++axis) {
    if (a[axis] != b[axis]) return false;
  }
  return true;
}

}  // namespace

CheckedForward::Numbers CheckedForward::numbers_of(const Attention& attention) {
  return {.scale = attention.scale,
          .window_left = attention.window_left,
          .window_right = attention.window_right,
          .prefix_length = attention.prefix_length,
          .block_rows = attention.block_rows,
          .block_columns = attention.block_columns,
          .softcap = attention.softcap,
          .dropout = attention.dropout,
          .splits = attention.splits,
          .alignment = attention.alignment,
          .rotary_style = attention.rotary_style,
          .causal = attention.causal,
          .batch_invariant = attention.batch_invariant,
          .deterministic = attention.deterministic};
}

void CheckedForward::remember(const Attention& attention, const ForwardOutputs& outputs, const Checked& checked) {
  checked_ = checked;
  numbers_ = numbers_of(attention);
  given_count_ = 0;
  const auto is_written = [&](const Tensor& tensor) {
    const bool appends = checked.problem.new_length > 0;
    return &tensor == &outputs.output || &tensor == &outputs.lse ||
           (appends && (&tensor == &attention.key || &tensor == &attention.value));
  };
  all_tensors(attention, outputs, checked_.buffers, [&](int place, const Tensor& tensor, char*&) {
    ranks_[place] = tensor.given() ? tensor.rank : 0;
    if (!tensor.given()) return true;
    const Extent extent = is_empty(tensor) ? Extent{} : extent_of(tensor);
    given_[given_count_++] = {.place = place, .written = is_written(tensor), .tensor = tensor, .extent = extent};
    return true;
  });
}

bool CheckedForward::moved(Given& given, const Tensor& tensor) {
  Tensor& known = given.tensor;
  if (tensor.dtype != known.dtype || !same_sizes(tensor.shape, known.shape, known.rank) ||
      !same_sizes(tensor.strides, known.strides, known.rank)) {
    return false;
  }
  const auto to = reinterpret_cast<std::uintptr_t>(tensor.data), from = reinterpret_cast<std::uintptr_t>(known.data);
  if ((to ^ from) % kAlignment != 0 || (to == 0) != (from == 0)) return false;
  given.extent.first += to - from;
  known.data = tensor.data;
  return true;
}

bool CheckedForward::outputs_are_apart() const {
  for (int i = 0; i < given_count_; ++i) {
    for (int j = 0; j < i; ++j) {
      if ((given_[i].written || given_[j].written) && meet(given_[i].extent, given_[j].extent)) return false;
    }
  }
  return true;
}

const Checked* CheckedForward::recall(const Attention& attention, const ForwardOutputs& outputs) {
  int seen = 0;
  const auto test = [&](int place, const Tensor& tensor, char*& address) {
    if (!tensor.given()) return ranks_[place] == 0;
    if (tensor.rank != ranks_[place]) return false;
    address = static_cast<char*>(tensor.data);
    return moved(given_[seen++], tensor);
  };
  if (given_count_ == 0 || !all_tensors(attention, outputs, checked_.buffers, test)) return nullptr;
  if (!(numbers_of(attention) == numbers_) || !outputs_are_apart()) return nullptr;
  Buffers& buffers = checked_.buffers;
  if (!attention.key_documents.given()) buffers.key_documents.data = buffers.query_documents.data;
  checked_.problem.dropout_seed = attention.dropout_seed;
  checked_.problem.dropout_offset = attention.dropout_offset;
  return &checked_;
}

}  // namespace strobe::check
