// A case: one line of text that describes an attention problem completely, down to its random values.
//
//   pass=forward dtype=bfloat16 batch=2 q=65 k=130 heads=8/2 dim=64/64 causal window=16,- softcap=30 seed=7
//
// Words are flags or name=value, in any order; what is left out has its default. The same line gives the same tensors
// on every machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/problem.hpp"

namespace strobe::cases {

struct Case {
  using Integers = std::vector<std::int64_t>;

  Pass pass = Pass::kForward;
  DataType dtype = DataType::kFloat32;
  std::string output_type;                 // of O; empty: dtype's own, bfloat16 for float8
  std::string grad_type;                   // of dQ, dK, dV; empty: dtype
  std::int64_t batch = 1, q = 16, k = 16;  // rows per sequence; k is the capacity of a cache
  std::int64_t query_heads = 1, kv_heads = 1, head_dim = 64, value_dim = 64;

  // One entry per sequence, or empty.
  Integers packed_queries, packed_keys;  // packed form: rows of each sequence, instead of q and k
  Integers query_lengths, key_lengths;   // rows in use
  Integers prefix_lengths;

  std::int64_t cache_rows = 0;  // rows of a cache whose cache_batch_index is shuffled
  std::int64_t page_size = 0;   // a paged cache, its pages shuffled
  std::int64_t append = 0;      // new keys per sequence
  std::int64_t rotary_dim = 0;
  bool rotary_halves = false;
  std::string rotary_type = "float32";

  std::optional<float> scale;
  float softcap = 0.0f, dropout = 0.0f;
  std::uint64_t dropout_offset = 0;
  // Axes that do not broadcast, some of "bhqk" (block_mask: of "bh"); "1" when all do; empty: not given.
  std::string bias, mask, block_mask;
  std::string bias_type = "float32";
  std::string alibi;      // "h" or "bh"
  std::string descale;    // "1" or "bh"
  std::string documents;  // "shared" by queries and keys, or "apart"
  bool sink = false, causal = false, top_left = false;
  std::optional<std::int64_t> window_left, window_right;
  std::int64_t prefix = 0;
  std::int64_t block_rows = 0, block_columns = 0;

  std::string layout = "bshd";  // bhsd: heads outside rows; padded: gaps between rows and heads; fused: slices of one
  std::string inputs =
      "normal";                // integers: one key takes all weight, so sums are exact; huge: scores in the thousands
  bool poison_unseen = false;  // keys that no query sees hold NaN
  std::string grads;           // some of "qkvbs"; empty: all that there are
  bool no_lse = false, grad_lse = false;
  std::int64_t splits = 0;
  bool batch_invariant = false, relaxed = false;  // relaxed: deterministic = false
  std::uint64_t seed = 1;

  bool operator==(const Case&) const = default;

  DataType output_dtype() const;
  DataType grad_dtype() const;
  bool cached() const { return cache_rows > 0 || page_size > 0 || append > 0; }
  std::int64_t longest_query() const;
  std::int64_t longest_key() const;
};

/// @throws Error naming the word that does not parse.
Case parse_case(std::string_view line);
/// The shortest line that parses to `c`.
std::string print_case(const Case& c);
/// @throws Error for names that are no type.
DataType parse_type(std::string_view name);

}  // namespace strobe::cases
