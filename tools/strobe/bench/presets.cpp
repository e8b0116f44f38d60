// The named sets of benchmark cases.
#include "bench/presets.hpp"

#include <fmt/format.h>

#include <span>
#include <utility>

#include "cpu/cpu.hpp"
#include "errors.hpp"

namespace strobe::tools {
namespace {

constexpr DataType kF32 = DataType::kFloat32, kF16 = DataType::kFloat16, kBF16 = DataType::kBFloat16;

BenchCase square(const char* pass, DataType dtype, std::int64_t length, std::int64_t dim, bool causal,
                 std::optional<double> target = std::nullopt, std::int64_t heads = 16) {
  return {.pass = pass,
          .dtype = dtype,
          .query_heads = heads,
          .kv_heads = heads,
          .query_length = length,
          .key_length = length,
          .head_dim = dim,
          .value_dim = dim,
          .causal = causal,
          .target = target};
}

BenchCase decode(DataType dtype, std::int64_t batch, std::int64_t keys, std::optional<double> target = std::nullopt) {
  return {.pass = "decode",
          .dtype = dtype,
          .batch = batch,
          .query_heads = 32,
          .kv_heads = 8,
          .query_length = 1,
          .key_length = keys,
          .target = target};
}

/// Targets for bf16 are fractions of the dot product's peak. On tile registers there are none.
std::optional<double> dot_target(double fraction) {
  return cpu::this_machine().best >= Isa::kAmxBf16 ? std::nullopt : std::optional(fraction);
}

/// The rows that the CPU backend has targets for.
std::vector<BenchCase> cpu_rows() {
  std::vector<BenchCase> rows = {
      square("forward", kF32, 4096, 128, false, 0.88),
      square("forward", kF32, 4096, 128, true, 0.84),
      square("forward", kF32, 4096, 64, false, 0.85),
      square("forward", kF32, 4096, 64, true, 0.80),
      square("forward", kF32, 1024, 64, true, 0.70),
      square("forward", kBF16, 4096, 128, false, dot_target(0.80)),
      square("forward", kBF16, 4096, 64, false, dot_target(0.74)),
      square("forward", kF16, 4096, 128, false, 0.84),
      square("backward", kF32, 4096, 128, false, 0.75),
      square("backward", kF32, 4096, 128, true, 0.75),
      square("backward", kF32, 4096, 64, false, 0.75),
      square("backward", kF32, 4096, 64, true, 0.75),
  };
  if (cpu::this_machine().best >= Isa::kAvx2) {
    rows.push_back(square("forward", kF32, 4096, 128, false, 0.78));
    rows.back().isa = Isa::kAvx2;
  }
  rows.push_back(decode(kBF16, 1, 32768, 0.70));
  return rows;
}

std::vector<BenchCase> quick_rows() {
  std::vector<BenchCase> rows;
  for (const DataType dtype : {kF32, kBF16}) {
    for (const std::int64_t dim : {64, 128}) {
      for (const bool causal : {false, true}) rows.push_back(square("forward", dtype, 1024, dim, causal));
    }
  }
  rows.push_back(square("backward", kF32, 1024, 64, false));
  rows.push_back(square("backward", kF32, 1024, 128, true));
  rows.push_back(decode(kBF16, 1, 8192));
  return rows;
}

std::vector<BenchCase> decode_rows() {
  std::vector<BenchCase> rows;
  for (const DataType dtype : {kF32, kF16, kBF16}) {
    for (const std::int64_t keys : {2048, 8192, 32768}) rows.push_back(decode(dtype, 1, keys));
  }
  rows.push_back(decode(kBF16, 8, 4096));
  return rows;
}

/// FlashAttention-2's figures 4 to 7 (arXiv 2307.08691): 16,384 tokens in all, hidden size 2048.
std::vector<BenchCase> flash_attention_grid(const char* pass, std::initializer_list<std::int64_t> dims) {
  constexpr std::int64_t kTokens = 16384, kHidden = 2048;
  std::vector<BenchCase> rows;
  for (const std::int64_t dim : dims) {
    for (const bool causal : {false, true}) {
      for (std::int64_t length = 512; length <= kTokens; length *= 2) {
        rows.push_back(square(pass, kBF16, length, dim, causal, std::nullopt, kHidden / dim));
        rows.back().batch = kTokens / length;
      }
    }
  }
  return rows;
}

/// Both passes of the grid that all three FlashAttention papers report (2307.08691, figures 4 to 7), head dimension 256
/// of the third (2407.08608, figures 5 to 7) included.
std::vector<BenchCase> whole_grid() {
  std::vector<BenchCase> rows;
  for (const char* pass : {"forward", "backward"}) {
    for (const BenchCase& row : flash_attention_grid(pass, {64, 128, 256})) rows.push_back(row);
  }
  return rows;
}

/// batch x keys as in docs/cuda.md; one query a sequence.
std::vector<BenchCase> gpu_decode_rows() {
  std::vector<BenchCase> rows;
  for (const auto& [batch, keys] : std::initializer_list<std::pair<std::int64_t, std::int64_t>>{
           {1, 8192}, {1, 131072}, {16, 8192}, {64, 4096}, {128, 8192}}) {
    rows.push_back(decode(kBF16, batch, keys));
  }
  return rows;
}

/// FlashAttention-3's figure 5 (2407.08608), forward, against the card's own matrix products; two rounds, since a
/// card's clock moves.
std::vector<BenchCase> third_paper_rows() {
  std::vector<BenchCase> rows;
  for (const int round : {1, 2}) {
    for (BenchCase& row : flash_attention_grid("forward", {64, 128, 256})) {
      row.round = round;
      row.against_products = true;
      rows.push_back(row);
    }
  }
  return rows;
}

/// What each option alone adds to the plain kernel, which comes before them.
std::vector<BenchCase> option_rows(std::int64_t dim) {
  struct Option {
    const char* name;
    std::optional<double> bound;
  };
  constexpr double kScoreBound = 1.15, kShareBound = 1.25;
  const std::vector<Option> of_scores = {{"", {}},
                                         {"softcap", kScoreBound},
                                         {"alibi", kScoreBound},
                                         {"bias", kScoreBound},
                                         {"documents", kScoreBound},
                                         {"prefix", kScoreBound},
                                         {"dropout", {}},
                                         {"sink", {}},
                                         {"mask", {}}};
  const std::vector<Option> of_tiles = {{"", {}}, {"window", kShareBound}, {"block_mask", kShareBound}};
  std::vector<BenchCase> rows;
  for (const char* pass : {"forward", "backward"}) {
    for (const std::int64_t length : {4096, 16384}) {
      for (const Option& option : length == 4096 ? of_scores : of_tiles) {
        rows.push_back(square(pass, kBF16, length, dim, false));
        rows.back().batch = 16384 / length;
        rows.back().option = option.name;
        rows.back().bound = option.bound;
      }
    }
  }
  return rows;
}

/// What an inference engine asks for besides the grid: sequences of mixed lengths, packed, against as many tokens in
/// sequences of one length; and 1 to 16 queries on a cache of 8k keys. Bounds come from the roofline: packed work goes
/// by its share of tiles; where keys and values are read once, 16 sequences of them as fast as a copy, while one
/// sequence takes 8 us at that rate, and starting and joining the splits another 10.
std::vector<BenchCase> serving_rows() {
  constexpr double kPackedBound = 1.15, kAlone = 0.40, kManyAtOnce = 0.85;
  constexpr std::int64_t kMean = 2048, kSequences = 16, kKeys = 8192;
  std::vector<BenchCase> rows;
  for (const char* pass : {"forward", "backward"}) {
    for (const bool causal : {false, true}) {
      for (const char* option : {"", "packed"}) {
        rows.push_back(square(pass, kBF16, kMean, 128, causal));
        rows.back().batch = kSequences;
        rows.back().option = option;
        if (*option != '\0') rows.back().bound = kPackedBound;
      }
    }
  }
  for (const std::int64_t batch : {std::int64_t(1), kSequences}) {
    for (const std::int64_t queries : {1, 2, 4, 8, 16}) {
      rows.push_back(decode(kBF16, batch, kKeys, batch == 1 ? kAlone : kManyAtOnce));
      rows.back().query_length = queries;
    }
  }
  return rows;
}

struct Preset {
  const char* name;
  std::vector<BenchCase> (*rows)();
};
constexpr Preset kCpuPresets[] = {
    {"cpu", cpu_rows},
    {"cpu-quick", quick_rows},
    {"decode", decode_rows},
    {"fa2-forward",
     [] {
       return flash_attention_grid("forward", {64, 128});
     }},
    {"fa2-backward",
     [] {
       return flash_attention_grid("backward", {64, 128});
     }},
    {"fa2-fig7", whole_grid},
};
constexpr Preset kCudaPresets[] = {
    {"fa2-fig7", whole_grid},
    {"decode", gpu_decode_rows},
    {"fa3-fig5", third_paper_rows},
    {"options", [] { return option_rows(128); }},
    {"options-64", [] { return option_rows(64); }},
    {"serving", serving_rows},
    {"host", [] { return std::vector<BenchCase>(); }},
    {"fa2-forward",
     [] {
       return flash_attention_grid("forward", {64, 128});
     }},
    {"fa2-backward",
     [] {
       return flash_attention_grid("backward", {64, 128});
     }},
};

std::span<const Preset> presets(DeviceKind kind) {
  return kind == DeviceKind::kCpu ? std::span<const Preset>(kCpuPresets) : kCudaPresets;
}

}  // namespace

std::string describe(const BenchCase& row) {
  std::string text = fmt::format("{} {} d{}", strobe::name_of(row.dtype), row.pass, row.head_dim);
  if (row.value_dim != row.head_dim) text += fmt::format("/{}", row.value_dim);
  text += row.query_length == row.key_length ? fmt::format(" N{}", row.key_length)
                                             : fmt::format(" {}x{}", row.query_length, row.key_length);
  if (row.batch != 1) text += fmt::format(" b{}", row.batch);
  if (row.query_heads != row.kv_heads) text += fmt::format(" h{}/{}", row.query_heads, row.kv_heads);
  if (row.pass != "decode") text += row.causal ? " causal" : " full";
  if (!row.option.empty()) text += " " + row.option;
  if (row.round > 0) text += fmt::format(" round {}", row.round);
  if (row.isa) text += fmt::format(" {}", strobe::name_of(*row.isa));
  return text;
}

std::vector<std::string> preset_names(DeviceKind kind) {
  std::vector<std::string> names;
  for (const Preset& each : presets(kind)) names.emplace_back(each.name);
  return names;
}

std::vector<BenchCase> preset(const std::string& name, DeviceKind kind) {
  for (const Preset& each : presets(kind)) {
    if (name != each.name) continue;
    std::vector<BenchCase> rows = each.rows();
    for (BenchCase& row : rows) row.name = describe(row);
    return rows;
  }
  throw UsageError(
      fmt::format("--preset is '{}', must be one of {} on this device", name, fmt::join(preset_names(kind), ", ")));
}

}  // namespace strobe::tools
