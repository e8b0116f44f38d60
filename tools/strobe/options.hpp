// The flags that subcommands share, in the words of docs/options.md with dashes: numbers and switches of an attention
// problem, sizes of one that has no data yet, and how to parse the values they take.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "strobe/strobe.hpp"

namespace strobe::tools {

/// @throws UsageError for a name that is no floating-point type.
DataType parse_float_type(const std::string& name);
/// "1024,0"; an empty half, "none" or "-1" means no bound.
struct Window {
  std::optional<std::int64_t> left, right;
};
Window parse_window(const std::string& text);
/// "64,64": two positive sizes.
struct BlockSize {
  std::int64_t rows = 0, columns = 0;
};
BlockSize parse_block_size(const std::string& text);
/// "0,17,33" as numbers, or nothing if the text is no such list.
std::optional<std::vector<double>> parse_list(const std::string& text);

/// Options that are numbers and switches.
struct OptionFlags {
  std::optional<float> scale;
  float softcap = 0.0f;
  bool causal = false;
  std::string window, alignment = "bottom-right", block_size, rotary_style = "interleaved";
  std::int64_t prefix = 0;
  float dropout = 0.0f;
  std::uint64_t seed = 0, offset = 0;
  std::int32_t splits = 0;
  bool batch_invariant = false, nondeterministic = false;

  void declare(CLI::App& command);
  /// @throws UsageError for a value that does not parse.
  void apply(Attention& attention) const;
};

/// Sizes of a dense problem without data.
struct SizeFlags {
  std::int64_t batch = 1, query_length = 1024, key_length = 0, heads = 16, kv_heads = 0, head_dim = 64, value_dim = 0;
  std::string dtype = "float32";

  void declare(CLI::App& command);
  /// Sizes left at 0 follow another: key_length query_length, kv_heads heads, value_dim head_dim.
  SizeFlags resolved() const;
};

/// An executor of `threads` threads, or the library's default for 0.
class Threads {
 public:
  explicit Threads(int threads);
  Executor* executor() const { return executor_; }
  int count() const { return executor_->concurrency(); }

 private:
  std::unique_ptr<Executor> own_;
  Executor* executor_;
};

/// "(2, 128, 4, 64)"
std::string shape_text(const Tensor& tensor);

}  // namespace strobe::tools
