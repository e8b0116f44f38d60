// Field by field from strobe.h to the C++ API.
#include "api/c_structs.hpp"

#include <optional>

namespace strobe::api {

Attention attention_of(const strobe_attention* given) {
  strobe_attention own;
  const strobe_attention& from = known_part("attention", given, own);
  const auto bound = [](std::int32_t has, std::int64_t value) {
    return has != 0 ? std::optional<std::int64_t>(value) : std::nullopt;
  };
  return {.query = tensor_of(from.query),
          .key = tensor_of(from.key),
          .value = tensor_of(from.value),
          .query_offsets = tensor_of(from.query_offsets),
          .key_offsets = tensor_of(from.key_offsets),
          .query_lengths = tensor_of(from.query_lengths),
          .key_lengths = tensor_of(from.key_lengths),
          .scale = from.has_scale != 0 ? std::optional<float>(from.scale) : std::nullopt,
          .softcap = from.softcap,
          .bias = tensor_of(from.bias),
          .alibi_slopes = tensor_of(from.alibi_slopes),
          .sink = tensor_of(from.sink),
          .causal = from.causal != 0,
          .window_left = bound(from.has_window_left, from.window_left),
          .window_right = bound(from.has_window_right, from.window_right),
          .alignment = Alignment(from.alignment),
          .prefix_length = from.prefix_length,
          .prefix_lengths = tensor_of(from.prefix_lengths),
          .query_documents = tensor_of(from.query_documents),
          .key_documents = tensor_of(from.key_documents),
          .mask = tensor_of(from.mask),
          .block_mask = tensor_of(from.block_mask),
          .block_rows = from.block_rows,
          .block_columns = from.block_columns,
          .dropout = from.dropout,
          .dropout_seed = from.dropout_seed,
          .dropout_offset = from.dropout_offset,
          .cache_batch_index = tensor_of(from.cache_batch_index),
          .page_table = tensor_of(from.page_table),
          .new_key = tensor_of(from.new_key),
          .new_value = tensor_of(from.new_value),
          .rotary_cos = tensor_of(from.rotary_cos),
          .rotary_sin = tensor_of(from.rotary_sin),
          .rotary_style = RotaryStyle(from.rotary_style),
          .query_descale = tensor_of(from.query_descale),
          .key_descale = tensor_of(from.key_descale),
          .value_descale = tensor_of(from.value_descale),
          .splits = from.splits,
          .batch_invariant = from.batch_invariant != 0,
          .deterministic = from.nondeterministic == 0};
}

ForwardOutputs outputs_of(const strobe_forward_outputs* given) {
  strobe_forward_outputs own;
  const strobe_forward_outputs& from = known_part("outputs", given, own);
  return {.output = tensor_of(from.output), .lse = tensor_of(from.lse)};
}

BackwardInputs inputs_of(const strobe_backward_inputs* given) {
  strobe_backward_inputs own;
  const strobe_backward_inputs& from = known_part("inputs", given, own);
  return {.output = tensor_of(from.output),
          .lse = tensor_of(from.lse),
          .grad_output = tensor_of(from.grad_output),
          .grad_lse = tensor_of(from.grad_lse)};
}

Gradients gradients_of(const strobe_gradients* given) {
  strobe_gradients own;
  const strobe_gradients& from = known_part("gradients", given, own);
  return {.query = tensor_of(from.query),
          .key = tensor_of(from.key),
          .value = tensor_of(from.value),
          .bias = tensor_of(from.bias),
          .sink = tensor_of(from.sink)};
}

}  // namespace strobe::api
