// What the checks find depends on shapes, strides, types and options; on addresses only by their alignment to 16 bytes
// (Problem::regular_rows), by whether there is one, and by whether outputs share memory with other tensors.
#include "check/repeat.hpp"

#include <iterator>
#include <utility>

namespace strobe::check {
namespace {

constexpr std::uintptr_t kAlignment = 16;

/// Where a call has a tensor, among the inputs or the outputs, and where Buffers has its address.
struct Place {
  Tensor Attention::*input;
  Tensor ForwardOutputs::*output;
  char*& (*address)(Buffers&);
};

template <auto kBuffer>
char*& address_of(Buffers& buffers) {
  return (buffers.*kBuffer).data;
}

constexpr Place kPlaces[] = {
    {&Attention::query, nullptr, address_of<&Buffers::query>},
    {&Attention::key, nullptr, address_of<&Buffers::key>},
    {&Attention::value, nullptr, address_of<&Buffers::value>},
    {&Attention::query_offsets, nullptr, address_of<&Buffers::query_offsets>},
    {&Attention::key_offsets, nullptr, address_of<&Buffers::key_offsets>},
    {&Attention::query_lengths, nullptr, address_of<&Buffers::query_lengths>},
    {&Attention::key_lengths, nullptr, address_of<&Buffers::key_lengths>},
    {&Attention::bias, nullptr, address_of<&Buffers::bias>},
    {&Attention::alibi_slopes, nullptr, address_of<&Buffers::alibi_slopes>},
    {&Attention::sink, nullptr, address_of<&Buffers::sink>},
    {&Attention::prefix_lengths, nullptr, address_of<&Buffers::prefix_lengths>},
    {&Attention::query_documents, nullptr, address_of<&Buffers::query_documents>},
    {&Attention::key_documents, nullptr, address_of<&Buffers::key_documents>},
    {&Attention::mask, nullptr, address_of<&Buffers::mask>},
    {&Attention::block_mask, nullptr, address_of<&Buffers::block_mask>},
    {&Attention::cache_batch_index, nullptr, address_of<&Buffers::cache_batch_index>},
    {&Attention::page_table, nullptr, address_of<&Buffers::page_table>},
    {&Attention::new_key, nullptr, address_of<&Buffers::new_key>},
    {&Attention::new_value, nullptr, address_of<&Buffers::new_value>},
    {&Attention::rotary_cos, nullptr, address_of<&Buffers::rotary_cos>},
    {&Attention::rotary_sin, nullptr, address_of<&Buffers::rotary_sin>},
    {&Attention::query_descale, nullptr, address_of<&Buffers::query_descale>},
    {&Attention::key_descale, nullptr, address_of<&Buffers::key_descale>},
    {&Attention::value_descale, nullptr, address_of<&Buffers::value_descale>},
    {nullptr, &ForwardOutputs::output, address_of<&Buffers::output>},
    {nullptr, &ForwardOutputs::lse, address_of<&Buffers::lse>},
};
constexpr std::size_t kPlaceCount = std::size(kPlaces);

inline const Tensor& tensor_at(const Place& place, const Attention& attention, const ForwardOutputs& outputs) {
  return place.input != nullptr ? attention.*place.input : outputs.*place.output;
}

/// How many tensors a call has.
int tensors_given(const Attention& attention, const ForwardOutputs& outputs) {
  return [&]<std::size_t... kPlace>(std::index_sequence<kPlace...>) {
    return (int(tensor_at(kPlaces[kPlace], attention, outputs).given()) + ...);
  }
  (std::make_index_sequence<kPlaceCount>());
}

inline bool same_sizes(const std::int64_t* a, const std::int64_t* b, int rank) {
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
  static_assert(kPlaceCount == kMostTensors);
  checked_ = checked;
  numbers_ = numbers_of(attention);
  given_count_ = 0;
  const bool appends = checked.problem.new_length > 0;
  for (int place = 0; place < kMostTensors; ++place) {
    const Tensor& tensor = tensor_at(kPlaces[place], attention, outputs);
    if (!tensor.given()) continue;
    const bool of_cache = &tensor == &attention.key || &tensor == &attention.value;
    given_[given_count_++] = {.place = place,
                              .written = kPlaces[place].output != nullptr || (appends && of_cache),
                              .tensor = tensor,
                              .extent = is_empty(tensor) ? Extent{} : extent_of(tensor)};
  }
}

inline bool CheckedForward::moved(Given& given, const Tensor& tensor) {
  Tensor& known = given.tensor;
  const auto to = reinterpret_cast<std::uintptr_t>(tensor.data), from = reinterpret_cast<std::uintptr_t>(known.data);
  if (tensor.rank != known.rank || tensor.dtype != known.dtype || !same_sizes(tensor.shape, known.shape, known.rank) ||
      !same_sizes(tensor.strides, known.strides, known.rank) || (to ^ from) % kAlignment != 0 ||
      (to == 0) != (from == 0)) {
    return false;
  }
  given.extent.first += to - from;
  known.data = tensor.data;
  return true;
}

inline bool CheckedForward::outputs_are_apart() const {
  for (int i = 0; i < given_count_; ++i) {
    for (int j = 0; j < i; ++j) {
      if ((given_[i].written || given_[j].written) && meet(given_[i].extent, given_[j].extent)) return false;
    }
  }
  return true;
}

const Checked* CheckedForward::recall(const Attention& attention, const ForwardOutputs& outputs) {
  if (given_count_ == 0) return nullptr;
  Buffers& buffers = checked_.buffers;
  for (int n = 0; n < given_count_; ++n) {
    const Place& place = kPlaces[given_[n].place];
    const Tensor& tensor = tensor_at(place, attention, outputs);
    if (!moved(given_[n], tensor)) return nullptr;
    place.address(buffers) = static_cast<char*>(tensor.data);
  }
  if (tensors_given(attention, outputs) != given_count_ || !(numbers_of(attention) == numbers_)) return nullptr;
  if (!outputs_are_apart()) return nullptr;
  if (!attention.key_documents.given()) buffers.key_documents.data = buffers.query_documents.data;
  checked_.problem.dropout_seed = attention.dropout_seed;
  checked_.problem.dropout_offset = attention.dropout_offset;
  return &checked_;
}

}  // namespace strobe::check
