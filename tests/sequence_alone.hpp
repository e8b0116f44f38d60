// One sequence of a batch as a problem of its own, and the bits of results.
#pragma once

#include <cstdint>
#include <vector>

#include "cases/instance.hpp"

namespace strobe::cases {

using Bytes = std::vector<unsigned char>;

inline Bytes bytes_of(const Tensor& tensor) {
  Bytes bytes;
  const std::size_t element = size_of(tensor.dtype);
  for_each_element(tensor, [&](const auto*, std::int64_t offset) {
    const auto* from = static_cast<const unsigned char*>(tensor.data) + static_cast<std::size_t>(offset) * element;
    bytes.insert(bytes.end(), from, from + element);
  });
  return bytes;
}

inline Bytes results_of(const Instance& instance) {
  Bytes bytes;
  for (const Storage& result : instance.results) {
    const Bytes more = bytes_of(result.tensor());
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

/// Sequence b of a tensor whose first axis is the batch.
inline Tensor sequence(Tensor tensor, std::int64_t b) {
  if (!tensor.given()) return tensor;
  tensor.data = static_cast<char*>(tensor.data) + b * tensor.strides[0] * std::int64_t(size_of(tensor.dtype));
  tensor.shape[0] = 1;
  return tensor;
}

/// Rows [first, first + count) of a packed tensor.
inline Tensor rows(Tensor tensor, std::int64_t first, std::int64_t count) {
  tensor.data = static_cast<char*>(tensor.data) + first * tensor.strides[0] * std::int64_t(size_of(tensor.dtype));
  tensor.shape[0] = count;
  return tensor;
}

/// Sequence b of an instance by itself: views of the same memory, and its part of the output.
struct SequenceAlone {
  SequenceAlone(const Instance& instance, std::int64_t b) : attention(instance.attention) {
    const Attention& all = instance.attention;
    if (all.query_offsets.given()) {
      const auto* query_offsets = static_cast<const std::int32_t*>(all.query_offsets.data);
      const auto* key_offsets = static_cast<const std::int32_t*>(all.key_offsets.data);
      query_ends[1] = query_offsets[b + 1] - query_offsets[b];
      key_ends[1] = key_offsets[b + 1] - key_offsets[b];
      attention.query_offsets = Tensor::contiguous(query_ends, DataType::kInt32, {2});
      attention.key_offsets = Tensor::contiguous(key_ends, DataType::kInt32, {2});
      attention.query = rows(all.query, query_offsets[b], query_ends[1]);
      attention.key = rows(all.key, key_offsets[b], key_ends[1]);
      attention.value = rows(all.value, key_offsets[b], key_ends[1]);
      in_batch = rows(instance.outputs.output, query_offsets[b], query_ends[1]);
    } else {
      attention.query = sequence(all.query, b);
      if (!all.page_table.given()) {
        attention.key = sequence(all.key, b);
        attention.value = sequence(all.value, b);
      }
      attention.page_table = sequence(all.page_table, b);
      in_batch = sequence(instance.outputs.output, b);
    }
    attention.key_lengths = sequence(all.key_lengths, b);
  }
  SequenceAlone(const SequenceAlone&) = delete;
  SequenceAlone& operator=(const SequenceAlone&) = delete;

  Attention attention;
  Tensor in_batch;
  std::int32_t query_ends[2] = {}, key_ends[2] = {};
};

/// Cases for "a sequence has the same bits alone"; with batch_invariant and no_lse.
inline constexpr const char* kInvarianceCases[] = {
    "batch=3 q=40 k=90 heads=4/2 dim=64 causal key_lengths=90,1,33",
    "batch=3 q=1 k=6000 heads=4/2 dim=32 key_lengths=6000,100,2049",
    "batch=2 q=1 k=6400 page=16 heads=4/1 dim=32 dtype=bfloat16 key_lengths=6000,4000",
    "batch=2 q=20 k=9000 heads=1 dim=16 key_lengths=9000,5000",
    "batch=3 packed_queries=1,60,7 packed_keys=300,60,70 heads=2/1 dim=32",
    "batch=3 packed_queries=4,30,2 packed_keys=5000,3000,6000 heads=1 dim=16",
    "batch=2 packed_queries=3,600 packed_keys=9000,20 heads=1 dim=16 dtype=bfloat16"};

/// Cases for "the same bits every time".
inline constexpr const char* kSameBitsCases[] = {
    "q=300 k=333 heads=4/2 dim=64 causal batch=2",
    "q=200 k=400 heads=2 dim=64 dtype=bfloat16 batch=2",
    "q=200 k=400 heads=2 dim=80 dtype=float16 window=70,- sink",
    "q=1 k=5000 heads=8/2 dim=64 batch=2 key_lengths=5000,2100",
    "q=2 k=5000 heads=4/2 dim=64 dtype=bfloat16 splits=4",
    "q=70 k=3000 heads=1 dim=64 splits=5",
    "batch=3 packed_queries=100,1,33 packed_keys=100,3000,64 heads=4/2 dim=32 causal",
    "pass=backward q=300 k=333 heads=4/2 dim=64 causal batch=2",
    "pass=backward q=200 k=200 heads=4/1 dim=48 dtype=bfloat16 bias=hk sink",
    "pass=backward q=200 k=200 heads=2 dim=48 batch=2 bias=1 dropout=0.5",
    "pass=backward batch=3 packed_queries=150,0,77 packed_keys=150,30,77 heads=4/2 dim=64 bias=bq",
    "pass=backward q=600 k=64 heads=1 dim=32 dtype=float16 bias=k",
    "pass=backward q=40 k=1500 heads=2/1 dim=64 bias=q bias_type=float32 dtype=bfloat16"};

}  // namespace strobe::cases
