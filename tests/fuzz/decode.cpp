// Builds calls from bytes; see decode.hpp.
#include "decode.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>

namespace strobe::fuzz {
namespace {

constexpr std::int64_t kLargestFootprint = 1 << 16;
constexpr double kMostElements = 2e5;

/// Sizes of the valid call.
struct Sizes {
  std::int64_t batch, queries, keys, kv_heads, heads, head_dim, value_dim;
  bool packed_queries, packed_keys, paged;
  std::int64_t page_size, pages;
  DataType type;

  explicit Sizes(Bytes& bytes)
      : batch(bytes.below(4)),
        queries(bytes.below(9)),
        keys(bytes.below(40)),
        kv_heads(1 + bytes.below(3)),
        heads(kv_heads * (1 + bytes.below(4))),
        head_dim(1 + bytes.below(40)),
        value_dim(1 + bytes.below(40)),
        packed_queries(bytes.below(4) == 0),
        packed_keys(bytes.below(4) == 0),
        paged(!packed_keys && bytes.below(4) == 0),
        page_size(1 + bytes.below(17)),
        pages(keys / page_size + 1),
        type(DataType(bytes.below(5))) {}
};

Tensor shaped(DataType type, std::initializer_list<std::int64_t> sizes) {
  return Tensor::contiguous(nullptr, type, sizes);
}

Tensor query_like(const Sizes& sizes, DataType type, std::int64_t dim) {
  if (sizes.packed_queries) return shaped(type, {sizes.batch * sizes.queries, sizes.heads, dim});
  return shaped(type, {sizes.batch, sizes.queries, sizes.heads, dim});
}

Tensor key_like(const Sizes& sizes, DataType type, std::int64_t dim) {
  if (sizes.packed_keys) return shaped(type, {sizes.batch * sizes.keys, sizes.kv_heads, dim});
  if (sizes.paged) return shaped(type, {sizes.batch * sizes.pages + 1, sizes.page_size, sizes.kv_heads, dim});
  return shaped(type, {sizes.batch, sizes.keys, sizes.kv_heads, dim});
}

Tensor lse_like(const Sizes& sizes) {
  if (sizes.packed_queries) return shaped(DataType::kFloat32, {sizes.heads, sizes.batch * sizes.queries});
  return shaped(DataType::kFloat32, {sizes.batch, sizes.heads, sizes.queries});
}

std::int64_t stored_keys(const Sizes& sizes) { return sizes.paged ? sizes.pages * sizes.page_size : sizes.keys; }

Tensor scores_like(Bytes& bytes, const Sizes& sizes, DataType type) {
  const auto or_one = [&](std::int64_t size) { return bytes.flag() ? size : 1; };
  return shaped(type, {or_one(sizes.batch), or_one(sizes.heads), or_one(sizes.queries), or_one(stored_keys(sizes))});
}

void add_tensors(const Sizes& sizes, Attention& attention) {
  attention.query = query_like(sizes, sizes.type, sizes.head_dim);
  attention.key = key_like(sizes, sizes.type, sizes.head_dim);
  attention.value = key_like(sizes, sizes.type, sizes.value_dim);
  if (sizes.packed_queries) attention.query_offsets = shaped(DataType::kInt32, {sizes.batch + 1});
  if (sizes.packed_keys) attention.key_offsets = shaped(DataType::kInt32, {sizes.batch + 1});
  if (sizes.paged) attention.page_table = shaped(DataType::kInt32, {sizes.batch, sizes.pages});
}

void add_options(Bytes& bytes, const Sizes& sizes, Attention& attention) {
  const auto sometimes = [&] { return bytes.below(4) == 0; };
  const auto per_sequence = [&] { return shaped(DataType::kInt32, {sizes.batch}); };
  if (sometimes()) attention.query_lengths = per_sequence();
  if (sometimes()) attention.key_lengths = per_sequence();
  if (sometimes()) attention.softcap = 3.0f;
  if (sometimes()) attention.bias = scores_like(bytes, sizes, DataType::kFloat32);
  if (sometimes()) attention.alibi_slopes = shaped(DataType::kFloat32, {sizes.heads});
  if (sometimes()) attention.sink = shaped(DataType::kFloat32, {sizes.heads});
  attention.causal = sometimes();
  if (sometimes()) attention.window_left = bytes.below(9);
  if (sometimes()) attention.window_right = bytes.below(9);
  attention.alignment = Alignment(bytes.below(2));
  if (sometimes()) attention.prefix_length = bytes.below(9);
  if (sometimes()) attention.prefix_lengths = per_sequence();
  if (sometimes()) {
    attention.query_documents = sizes.packed_queries ? shaped(DataType::kInt32, {sizes.batch * sizes.queries})
                                                     : shaped(DataType::kInt32, {sizes.batch, sizes.queries});
    attention.key_documents = sizes.packed_keys ? shaped(DataType::kInt32, {sizes.batch * sizes.keys})
                                                : shaped(DataType::kInt32, {sizes.batch, stored_keys(sizes)});
  }
  if (sometimes()) attention.mask = scores_like(bytes, sizes, DataType::kBool);
  if (sometimes()) {
    attention.block_rows = 1 + bytes.below(8);
    attention.block_columns = 1 + bytes.below(8);
    attention.block_mask =
        shaped(DataType::kBool, {1, sizes.heads, (sizes.queries + attention.block_rows - 1) / attention.block_rows,
                                 (stored_keys(sizes) + attention.block_columns - 1) / attention.block_columns});
  }
  if (sometimes()) attention.dropout = 0.5f;
  if (sometimes()) attention.splits = std::int32_t(bytes.below(5));
  attention.batch_invariant = sometimes();
}

void add_cache(Bytes& bytes, const Sizes& sizes, Attention& attention) {
  if (bytes.below(3) == 0) attention.cache_batch_index = shaped(DataType::kInt32, {sizes.batch});
  if (bytes.below(3) == 0) {
    const std::int64_t length = bytes.below(4);
    attention.key_lengths = shaped(DataType::kInt32, {sizes.batch});
    attention.new_key = shaped(sizes.type, {sizes.batch, length, sizes.kv_heads, sizes.head_dim});
    attention.new_value = shaped(sizes.type, {sizes.batch, length, sizes.kv_heads, sizes.value_dim});
  }
  if (bytes.below(3) == 0) {
    attention.rotary_cos = attention.rotary_sin =
        shaped(DataType::kFloat32, {1 + bytes.below(64), std::max<std::int64_t>(sizes.head_dim / 2, 1)});
    attention.rotary_style = RotaryStyle(bytes.below(2));
  }
  if (bytes.below(3) == 0) attention.key_descale = shaped(DataType::kFloat32, {1});
}

void set_hostile_tensor(Bytes& bytes, Tensor& tensor) {
  const int axis = int(bytes.below(kMaxRank));
  switch (bytes.below(6)) {
    case 0:
      tensor.dtype = DataType(bytes.hostile());
      break;
    case 1:
      tensor.rank = bytes.flag() ? std::int32_t(bytes.below(8)) : std::int32_t(bytes.hostile());
      break;
    case 2:
      tensor.shape[axis] = bytes.hostile();
      break;
    case 3:
      tensor.strides[axis] = bytes.hostile();
      break;
    case 4:
      tensor.strides[axis] += bytes.below(9) - 4;
      break;
    case 5:
      tensor = {};
      break;
  }
}

void set_hostile_option(Bytes& bytes, Call& call) {
  Attention& attention = call.attention;
  const std::int64_t value = bytes.hostile();
  float real;
  std::memcpy(&real, &value, sizeof(real));
  switch (bytes.below(13)) {
    case 0:
      attention.scale = real;
      break;
    case 1:
      attention.softcap = real;
      break;
    case 2:
      attention.window_left = value;
      break;
    case 3:
      attention.window_right = value;
      break;
    case 4:
      attention.alignment = Alignment(value);
      break;
    case 5:
      attention.prefix_length = value;
      break;
    case 6:
      attention.block_rows = value;
      break;
    case 7:
      attention.block_columns = value;
      break;
    case 8:
      attention.dropout = real;
      break;
    case 9:
      attention.rotary_style = RotaryStyle(value);
      break;
    case 10:
      attention.splits = std::int32_t(value);
      break;
    case 11:
      call.axis = int(value);
      break;
    case 12:
      attention.dropout_offset = std::uint64_t(value);
      break;
  }
}

/// Bytes before and after `data` that the tensor's elements reach; false when that is too much or not even defined.
bool footprint(const Tensor& tensor, std::int64_t& before, std::int64_t& after) {
  if (tensor.rank < 1 || tensor.rank > kMaxRank) return false;
  before = 0;
  after = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    const std::int64_t size = tensor.shape[axis], stride = tensor.strides[axis];
    if (size <= 1 || stride == 0) continue;
    if (size > kLargestFootprint || stride > kLargestFootprint || stride < -kLargestFootprint) return false;
    (stride < 0 ? before : after) += (size - 1) * (stride < 0 ? -stride : stride);
  }
  before *= std::int64_t(size_of(tensor.dtype));
  after *= std::int64_t(size_of(tensor.dtype));
  return before + after <= kLargestFootprint;
}

/// Offsets, lengths and page numbers that are mostly valid; floats of every kind, NaN included.
void fill(Bytes& bytes, std::byte* memory, std::int64_t size, const Tensor& tensor, const Sizes& sizes) {
  if (tensor.dtype == DataType::kInt32) {
    const std::int64_t style = bytes.below(6), step = style == 0 ? sizes.queries : style == 1 ? sizes.keys : 0;
    for (std::int64_t i = 0; i < size / 4; ++i) {
      std::int64_t value = step * i;
      if (style == 2) value = i;
      if (style == 3) value = bytes.below(8);
      if (style == 4) value = std::min(sizes.queries, sizes.keys);
      if (style == 5 && bytes.below(16) == 0) value = bytes.hostile();
      const std::int32_t stored = std::int32_t(value);
      std::memcpy(memory + 4 * i, &stored, 4);
    }
    return;
  }
  std::uint32_t state = bytes.byte();
  for (std::int64_t i = 0; i < size; ++i) {
    state = state * 1664525u + 1013904223u;
    memory[i] = std::byte(state >> 24);
  }
}

void give_memory(Bytes& bytes, Call& call, const Sizes& sizes) {
  for (Tensor* tensor : call.tensors()) {
    std::int64_t before = 0, after = 0;
    if (!tensor->given() || !footprint(*tensor, before, after)) continue;
    call.memory.push_back(std::make_unique<std::byte[]>(std::size_t(before + after)));
    fill(bytes, call.memory.back().get(), before + after, *tensor, sizes);
    tensor->data = call.memory.back().get() + before;
  }
}

}  // namespace

std::int64_t Bytes::hostile() {
  const std::int64_t shape = below(8);
  if (shape < 3) return byte() - 3;
  if (shape == 3) return -std::int64_t(byte());
  if (shape < 6) {
    const std::uint64_t power = std::uint64_t(1) << below(64);
    return std::int64_t(power + std::uint64_t(byte()) - 128);
  }
  std::uint64_t any = 0;
  for (int i = 0; i < 8; ++i) any = any << 8 | byte();
  return std::int64_t(any);
}

std::vector<Tensor*> Call::tensors() {
  Attention& a = attention;
  return {&a.query,
          &a.key,
          &a.value,
          &a.query_offsets,
          &a.key_offsets,
          &a.query_lengths,
          &a.key_lengths,
          &a.bias,
          &a.alibi_slopes,
          &a.sink,
          &a.prefix_lengths,
          &a.query_documents,
          &a.key_documents,
          &a.mask,
          &a.block_mask,
          &a.cache_batch_index,
          &a.page_table,
          &a.new_key,
          &a.new_value,
          &a.rotary_cos,
          &a.rotary_sin,
          &a.query_descale,
          &a.key_descale,
          &a.value_descale,
          &outputs.output,
          &outputs.lse,
          &inputs.output,
          &inputs.lse,
          &inputs.grad_output,
          &inputs.grad_lse,
          &gradients.query,
          &gradients.key,
          &gradients.value,
          &gradients.bias,
          &gradients.sink,
          &parts,
          &part_lses};
}

Call decode(Bytes& bytes) {
  Call call;
  call.entry = Entry(bytes.below(12) < 6 ? 0 : bytes.below(6));
  const Sizes sizes(bytes);
  const DataType wide = sizes.type >= DataType::kFloat8E4M3 ? DataType::kFloat16 : sizes.type;
  const DataType output_type = bytes.flag() ? DataType::kFloat32 : wide;
  add_tensors(sizes, call.attention);
  add_options(bytes, sizes, call.attention);
  if (call.entry == Entry::kForward || call.entry == Entry::kAppend) add_cache(bytes, sizes, call.attention);
  call.outputs.output = query_like(sizes, output_type, sizes.value_dim);
  if (bytes.flag()) call.outputs.lse = lse_like(sizes);
  if (call.entry == Entry::kBackward) {
    call.inputs.output = call.inputs.grad_output = call.outputs.output;
    call.inputs.lse = lse_like(sizes);
    if (bytes.flag()) call.inputs.grad_lse = lse_like(sizes);
    if (bytes.flag()) call.gradients.query = call.attention.query;
    if (bytes.flag()) call.gradients.key = call.attention.key;
    if (bytes.flag()) call.gradients.value = call.attention.value;
    if (bytes.flag()) call.gradients.bias = call.attention.bias;
    if (bytes.flag()) call.gradients.sink = call.attention.sink;
  } else if (call.entry == Entry::kMerge) {
    const std::int64_t splits = 1 + bytes.below(4);
    call.parts = shaped(output_type, {splits, sizes.batch, sizes.queries, sizes.heads, sizes.value_dim});
    call.part_lses = shaped(DataType::kFloat32, {splits, sizes.batch, sizes.heads, sizes.queries});
  } else if (call.entry == Entry::kSoftmax || call.entry == Entry::kSoftmaxBackward) {
    call.inputs.output = call.inputs.grad_output = call.gradients.query = call.outputs.output;
    call.axis = int(bytes.below(8)) - 4;
  }
  for (std::int64_t left = bytes.below(4); left > 0; --left) spoil(bytes, call);
  give_memory(bytes, call, sizes);
  if (call.entry == Entry::kForward && bytes.below(16) == 0) call.outputs.output.data = call.attention.query.data;
  return call;
}

void spoil(Bytes& bytes, Call& call) {
  if (bytes.below(4) == 0) return set_hostile_option(bytes, call);
  const std::vector<Tensor*> tensors = call.tensors();
  set_hostile_tensor(bytes, *tensors[std::size_t(bytes.below(std::int64_t(tensors.size())))]);
}

bool small_enough(Call& call) {
  double total = 0;
  for (Tensor* tensor : call.tensors()) {
    if (!tensor->given() || tensor->rank > kMaxRank) continue;
    double elements = 1;
    for (int axis = 0; axis < tensor->rank; ++axis) elements *= std::max<double>(double(tensor->shape[axis]), 1);
    total += elements;
  }
  return total <= kMostElements;
}

}  // namespace strobe::fuzz
