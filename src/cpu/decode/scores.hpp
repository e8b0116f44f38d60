// What happens to one row of a block's scores between Q K^T and the softmax, and to its probabilities after: scale,
// softcap, bias, ALiBi, hiding, dropout. Scores leave in base-2 logarithms.
#pragma once

#include "cpu/decode/block.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

template <typename T>
STROBE_INLINE void gather(const char* from, std::int64_t stride, int count, float* to) {
  T lanes[kKeys] = {};
  for (int n = 0; n < count; ++n) lanes[n] = *reinterpret_cast<const T*>(from + n * stride);
  for (int n = 0; n < kKeys; n += kLanes) store(to + n, load(lanes + n));
}

/// s += bias[head, query, first ...]
void add_bias(const ForwardTask& task, const QueryRow& row, std::int64_t first, float* s) {
  const ScoreRows& bias = task.bias;
  const char* from = bias.data + row.head * bias.head_stride + row.query * bias.row_stride + first * bias.column_stride;
  const int count = int(smaller(kKeys, task.key_length - first));
  alignas(64) float values[kKeys];
  switch (bias.dtype) {
    case DataType::kFloat16:
      gather<Half>(from, bias.column_stride, count, values);
      break;
    case DataType::kBFloat16:
      gather<BFloat16>(from, bias.column_stride, count, values);
      break;
    case DataType::kFloat8E4M3:
      gather<E4M3>(from, bias.column_stride, count, values);
      break;
    case DataType::kFloat8E5M2:
      gather<E5M2>(from, bias.column_stride, count, values);
      break;
    default:
      gather<float>(from, bias.column_stride, count, values);
  }
  for (int n = 0; n < kKeys; n += kLanes) store(s + n, add(load(s + n), load(values + n)));
}

/// s -= slope |p - j|
void add_alibi(const ForwardTask& task, const QueryRow& row, std::int64_t first, float* s) {
  alignas(64) float index[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = float(lane);
  const Floats slope = broadcast(task.alibi_slopes[row.head * task.alibi_stride]);
  const std::int64_t distance = row.query + task.position_shift - first;
  for (int n = 0; n < kKeys; n += kLanes) {
    const Floats away = abs(sub(broadcast(float(distance - n)), load(index)));
    store(s + n, sub(load(s + n), mul(slope, away)));
  }
}

/// One row of raw dot products becomes scores times log2(e), -inf where the row does not see the key.
void finish_scores(const ForwardTask& task, const QueryRow& row, std::int64_t first, Bits visible, float* s) {
  const bool plain = task.softcap == 0.0f && task.bias.data == nullptr && task.alibi_slopes == nullptr;
  const Floats scale = broadcast(plain ? task.scale * kLog2E : task.scale);
  for (int n = 0; n < kKeys; n += kLanes) store(s + n, mul(load(s + n), scale));
  if (task.softcap != 0.0f) {
    const Floats cap = broadcast(task.softcap), inverse = broadcast(1.0f / task.softcap);
    for (int n = 0; n < kKeys; n += kLanes) store(s + n, mul(tanh(mul(load(s + n), inverse)), cap));
  }
  if (task.bias.data != nullptr) add_bias(task, row, first, s);
  if (task.alibi_slopes != nullptr) add_alibi(task, row, first, s);
  if (!plain) {
    for (int n = 0; n < kKeys; n += kLanes) store(s + n, mul(load(s + n), broadcast(kLog2E)));
  }
  for (Bits hidden = ~visible; hidden != 0; hidden &= hidden - 1) s[__builtin_ctzll(hidden)] = kMinusInfinity;
}

/// p *= keep / (1 - probability). Four neighbouring keys share a counter, so a block needs kKeys / 4 of them.
void drop(const ForwardTask& task, const QueryRow& row, std::int64_t first, float* p) {
  const std::uint64_t stream = task.dropout_stream + std::uint64_t(row.head);
  std::int32_t index[kLanes], draws[4][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = lane;
  for (int n = 0; n < kKeys; n += 4 * kLanes) {
    Ints counter[4] = {broadcast_int(std::int32_t(row.query)),
                       add_ints(broadcast_int(std::int32_t((first + n) / 4)), load_ints(index)),
                       broadcast_int(std::int32_t(std::uint32_t(stream))),
                       broadcast_int(std::int32_t(std::uint32_t(stream >> 32)))};
    philox(counter, task.dropout_seed);
    for (int word = 0; word < 4; ++word) store_ints(draws[word], counter[word]);
    for (int k = 0; k < 4 * kLanes; ++k) {
      const bool keep = std::uint32_t(draws[k % 4][k / 4]) >= task.dropout_threshold;
      p[n + k] = keep ? p[n + k] * task.dropout_scale : 0.0f;
    }
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
