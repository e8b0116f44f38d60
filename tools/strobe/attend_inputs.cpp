// Reading tensors and giving them the shapes that the library takes: views wherever possible, never a copy.
#include "attend_inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "files/files.hpp"
#include "options.hpp"

namespace strobe::tools {
namespace {

enum class Kind {
  kRows,     // [batch, length, heads, dim], the inputs' type
  kScores,   // [batch, heads, rows, columns] floats; missing axes in front broadcast
  kMask,     // the same, bool
  kFloats,   // float32, as they are
  kInts,     // int32, as they are
  kTable,    // floats in float32 or the inputs' type, as they are
  kBatched,  // int32, [batch, n]; a missing batch axis is 1 unless queries are packed
};

struct OptionalTensor {
  const char* flag;
  Tensor Attention::*member;
  Kind kind;
  const char* help;
};

constexpr OptionalTensor kOptionalTensors[] = {
    {"--bias", &Attention::bias, Kind::kScores, "Added to the scores, (batch, heads, queries, keys)"},
    {"--mask", &Attention::mask, Kind::kMask, "True where a key is visible, (batch, heads, queries, keys)"},
    {"--block-mask", &Attention::block_mask, Kind::kMask, "True where a tile of --block-size is visible"},
    {"--alibi-slopes", &Attention::alibi_slopes, Kind::kFloats, "(heads); or geometric: 2^(-8 h / heads)"},
    {"--sink", &Attention::sink, Kind::kFloats, "(heads): a logit that takes weight and has no value"},
    {"--documents", &Attention::query_documents, Kind::kBatched, "Document of each query (and key)"},
    {"--key-documents", &Attention::key_documents, Kind::kBatched, "Document of each key"},
    {"--query-offsets", &Attention::query_offsets, Kind::kInts, "(batch + 1): queries are packed"},
    {"--key-offsets", &Attention::key_offsets, Kind::kInts, "(batch + 1): keys are packed"},
    {"--query-lengths", &Attention::query_lengths, Kind::kInts, "(batch): queries in use"},
    {"--key-lengths", &Attention::key_lengths, Kind::kInts, "(batch): keys in use"},
    {"--prefix-lengths", &Attention::prefix_lengths, Kind::kInts, "(batch): --prefix for each sequence"},
    {"--cache-batch-index", &Attention::cache_batch_index, Kind::kInts, "(batch): row of the cache"},
    {"--page-table", &Attention::page_table, Kind::kBatched, "(batch, pages): keys and values are pages"},
    {"--new-key", &Attention::new_key, Kind::kRows, "Appended to the cache before attention"},
    {"--new-value", &Attention::new_value, Kind::kRows, "Appended to the cache before attention"},
    {"--rotary-cos", &Attention::rotary_cos, Kind::kTable, "(positions, rotary_dim / 2)"},
    {"--rotary-sin", &Attention::rotary_sin, Kind::kTable, "(positions, rotary_dim / 2)"},
    {"--query-descale", &Attention::query_descale, Kind::kFloats, "Factor of float8 queries, (1) or (batch, kv_heads)"},
    {"--key-descale", &Attention::key_descale, Kind::kFloats, "Factor of float8 keys"},
    {"--value-descale", &Attention::value_descale, Kind::kFloats, "Factor of float8 values"},
};

/// A rank-1 array of the numbers in a list, or nothing if the text is a file's name.
std::optional<Array> from_list(const std::string& text, Kind kind, const char* flag) {
  const auto values = parse_list(text);
  if (!values) return std::nullopt;
  const bool whole = kind == Kind::kInts || kind == Kind::kBatched;
  Array array(whole ? DataType::kInt32 : DataType::kFloat32, {std::int64_t(values->size())});
  for (std::size_t i = 0; i < values->size(); ++i) {
    const double value = (*values)[i];
    if (!whole) {
      array.as<float>()[i] = float(value);
    } else if (value == std::floor(value) && std::abs(value) <= double(INT32_MAX)) {
      array.as<std::int32_t>()[i] = std::int32_t(value);
    } else {
      throw UsageError(fmt::format("{} has {}, must have whole 32-bit numbers", flag, value));
    }
  }
  return array;
}

Array geometric_slopes(std::int64_t heads) {
  Array array(DataType::kFloat32, {heads});
  for (std::int64_t h = 0; h < heads; ++h)
    array.as<float>()[h] = float(std::exp2(-8.0 * double(h + 1) / double(heads)));
  return array;
}

/// Puts axes of size 1 in front until the tensor has `rank` axes.
Tensor widen(Tensor tensor, int rank) {
  while (tensor.rank < rank) {
    std::copy_backward(tensor.shape, tensor.shape + tensor.rank, tensor.shape + tensor.rank + 1);
    std::copy_backward(tensor.strides, tensor.strides + tensor.rank, tensor.strides + tensor.rank + 1);
    tensor.shape[0] = 1;
    tensor.strides[0] = tensor.rank > 0 ? tensor.shape[1] * tensor.strides[1] : 1;
    ++tensor.rank;
  }
  return tensor;
}

class Reader {
 public:
  Reader(const InputFlags& flags, Inputs& inputs) : flags_(flags), inputs_(inputs) {
    if (!flags.dtype.empty()) wanted_ = parse_float_type(flags.dtype);
  }

  Tensor keep(Array array) { return inputs_.arrays.emplace_back(std::move(array)).view(); }

  Tensor floats(const std::string& spec, const std::string& name, std::optional<DataType> type) {
    std::string note;
    Array array = to_floats(read_array(spec, name), type, note);
    if (!note.empty()) inputs_.notes.push_back(note);
    return keep(std::move(array));
  }

  Tensor main_tensor(const std::string& spec, const std::string& name) { return floats(spec, name, wanted_); }

  Tensor optional_tensor(const OptionalTensor& tensor, const std::string& text, const Attention& so_far) {
    if (tensor.member == &Attention::alibi_slopes && text == "geometric") {
      return keep(geometric_slopes(so_far.query.shape[so_far.query.rank - 2]));
    }
    if (tensor.kind == Kind::kInts || tensor.kind == Kind::kBatched || tensor.kind == Kind::kFloats) {
      if (auto array = from_list(text, tensor.kind, tensor.flag))
        return batched(tensor, keep(std::move(*array)), so_far);
    }
    switch (tensor.kind) {
      case Kind::kInts:
      case Kind::kBatched:
        return batched(tensor, keep(to_ints(read_array(text))), so_far);
      case Kind::kMask:
        return widen(keep(to_bools(read_array(text))), 4);
      case Kind::kRows:
        return rows_view(floats(text, "", so_far.key.dtype), flags_.layout, false, tensor.flag + 2);
      case Kind::kFloats:
        return floats(text, "", DataType::kFloat32);
      case Kind::kScores:
      case Kind::kTable:
        break;
    }
    Tensor values = floats(text, "", std::nullopt);
    if (values.dtype != so_far.query.dtype && values.dtype != DataType::kFloat32) {
      values = keep(convert(values, DataType::kFloat32));
    }
    return tensor.kind == Kind::kScores ? widen(values, 4) : values;
  }

 private:
  static Tensor batched(const OptionalTensor& tensor, const Tensor& values, const Attention& so_far) {
    const bool packed = tensor.member == &Attention::query_documents ? so_far.query_offsets.given()
                        : tensor.member == &Attention::key_documents ? so_far.key_offsets.given()
                                                                     : false;
    return tensor.kind == Kind::kBatched && !packed ? widen(values, 2) : values;
  }

  const InputFlags& flags_;
  Inputs& inputs_;
  std::optional<DataType> wanted_;
};

/// The three specs of query, key and value, and the names they have in .safetensors files.
struct MainTensors {
  std::string specs[3], names[3];
};

MainTensors main_tensors(const InputFlags& flags) {
  MainTensors result;
  const std::string* named[] = {&flags.query, &flags.key, &flags.value};
  if (flags.names.size() != 3) throw UsageError("--names takes three names: those of query, key and value");
  if (flags.files.size() != 0 && flags.files.size() != 1 && flags.files.size() != 3) {
    throw UsageError(fmt::format("{} input files given, must be one .safetensors with three tensors, or three files",
                                 flags.files.size()));
  }
  if (flags.files.size() == 1 && !is_safetensors(flags.files[0])) {
    throw UsageError("'" + flags.files[0] + "' alone cannot hold query, key and value, must be a .safetensors");
  }
  for (std::size_t i = 0; i < 3; ++i) {
    if (!named[i]->empty()) {
      result.specs[i] = *named[i];
    } else if (!flags.files.empty()) {
      result.specs[i] = flags.files[flags.files.size() == 1 ? 0 : i];
    } else {
      throw UsageError(
          "query, key and value are needed: one .safetensors file, three files, or --query, --key, --value");
    }
    result.names[i] = flags.names[i];
  }
  return result;
}

}  // namespace

Tensor rows_view(const Tensor& stored, const std::string& layout, bool packed, const char* name) {
  const int full = packed ? 3 : 4;
  if (stored.rank < 2 || stored.rank > full) {
    throw UsageError(fmt::format("{} has shape {}, must have {} axes", name, shape_text(stored),
                                 packed ? "2 or 3 (total length, heads, dim)" : "2 to 4 (batch, length, heads, dim)"));
  }
  Tensor view = stored;
  if (view.rank == 2) {  // [length, dim]: one head
    view.rank = 3;
    view.shape[2] = stored.shape[1];
    view.strides[2] = 1;
    view.shape[1] = 1;
    view.strides[1] = stored.shape[1];
  } else if (layout == "bhsd") {
    std::swap(view.shape[view.rank - 3], view.shape[view.rank - 2]);
    std::swap(view.strides[view.rank - 3], view.strides[view.rank - 2]);
  }
  if (view.rank < full) {
    view = widen(view, full);
    view.strides[0] = std::max<std::int64_t>(stored.elements(), 1);
  }
  return view;
}

void InputFlags::declare(CLI::App& command) {
  optional.resize(std::size(kOptionalTensors));
  command.add_option("files", files, "One .safetensors with query, key and value, or three .npy or .safetensors files");
  command.add_option("--names", names, "Names of query, key and value in a .safetensors file")
      ->delimiter(',')
      ->expected(1, 3)
      ->capture_default_str();
  command.add_option("-q,--query", query, "File of the query: FILE.npy, FILE.safetensors or FILE.safetensors:NAME");
  command.add_option("-k,--key", key, "File of the key");
  command.add_option("-v,--value", value, "File of the value");
  command.add_option("--layout", layout, "Order of axes: bshd (batch, length, heads, dim) or bhsd")
      ->check(CLI::IsMember({"bshd", "bhsd"}))
      ->capture_default_str();
  command.add_option("--dtype", dtype, "Type to compute with: inputs are converted to it [the files' own type]");
  for (std::size_t i = 0; i < std::size(kOptionalTensors); ++i) {
    const OptionalTensor& tensor = kOptionalTensors[i];
    const bool list = tensor.kind == Kind::kInts || tensor.kind == Kind::kFloats || tensor.kind == Kind::kBatched;
    command.add_option(tensor.flag, optional[i], tensor.help)->type_name(list ? "FILE|LIST" : "FILE")->group("Tensors");
  }
}

Inputs read_inputs(const InputFlags& flags, const Attention& options) {
  Inputs inputs;
  inputs.attention = options;
  Attention& attention = inputs.attention;
  const MainTensors main = main_tensors(flags);
  Reader reader(flags, inputs);

  bool packed_queries = false, packed_keys = false;
  for (std::size_t i = 0; i < std::size(kOptionalTensors); ++i) {
    if (flags.optional[i].empty()) continue;
    packed_queries |= kOptionalTensors[i].member == &Attention::query_offsets;
    packed_keys |= kOptionalTensors[i].member == &Attention::key_offsets;
  }
  const Tensor query = reader.main_tensor(main.specs[0], main.names[0]);
  inputs.query_shape.assign(query.shape, query.shape + query.rank);
  attention.query = rows_view(query, flags.layout, packed_queries, "query");
  attention.key = rows_view(reader.main_tensor(main.specs[1], main.names[1]), flags.layout, packed_keys, "key");
  attention.value = rows_view(reader.main_tensor(main.specs[2], main.names[2]), flags.layout, packed_keys, "value");

  // Offsets first: whether documents are packed depends on them.
  for (const bool offsets : {true, false}) {
    for (std::size_t i = 0; i < std::size(kOptionalTensors); ++i) {
      const OptionalTensor& tensor = kOptionalTensors[i];
      const bool is_offsets = tensor.member == &Attention::query_offsets || tensor.member == &Attention::key_offsets;
      if (flags.optional[i].empty() || is_offsets != offsets) continue;
      attention.*tensor.member = reader.optional_tensor(tensor, flags.optional[i], attention);
    }
  }
  return inputs;
}

}  // namespace strobe::tools
