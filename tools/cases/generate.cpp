// See generate.hpp. Each option is drawn on its own with a modest chance, so that most cases combine several, and then
// what cannot go together is left out.
#include "cases/generate.hpp"

#include <algorithm>
#include <string>

#include "cases/random.hpp"

namespace strobe::cases {
namespace {

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed * 0xD1B54A32D192ED03u + 1) { c_.seed = seed; }

  Case draw() {
    draw_sizes();
    if (c_.pass == Pass::kForward && chance(0.35)) {
      draw_cache();
    } else if (chance(0.3)) {
      draw_packed();
    } else if (chance(0.3)) {
      draw_lengths();
    }
    draw_scores();
    draw_visibility();
    draw_execution();
    return c_;
  }

 private:
  bool chance(double probability) { return random_.chance(probability); }
  std::int64_t integer(std::int64_t first, std::int64_t last) { return random_.integer(first, last); }

  std::int64_t length() {
    if (chance(0.1)) return integer(0, 1);
    if (chance(0.25)) return random_.pick({16, 32, 63, 64, 65, 96, 127, 128, 129});
    return integer(2, 140);
  }
  std::int64_t dim() {
    if (chance(0.5)) return random_.pick({32, 64, 80, 96, 128});
    return chance(0.1) ? integer(129, 256) : integer(1, 100);
  }
  Case::Integers one_per_sequence(std::int64_t first, std::int64_t last) {
    Case::Integers values;
    for (std::int64_t b = 0; b < c_.batch; ++b) values.push_back(chance(0.15) ? first : integer(first, last));
    return values;
  }
  /// A random choice of the letters, "1" for none of them.
  std::string axes(const char* letters) {
    std::string chosen;
    for (const char* letter = letters; *letter != 0; ++letter) {
      if (chance(0.6)) chosen += *letter;
    }
    return chosen.empty() ? "1" : chosen;
  }

  void draw_sizes() {
    c_.pass = chance(0.4) ? Pass::kBackward : Pass::kForward;
    c_.dtype = random_.pick({DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16});
    if (c_.pass == Pass::kForward && chance(0.1)) {
      c_.dtype = random_.pick({DataType::kFloat8E4M3, DataType::kFloat8E5M2});
      if (chance(0.5)) c_.descale = chance(0.5) ? "1" : "bh";
      c_.output_type = random_.pick({"", "float16", "float32"});
    } else if (c_.dtype != DataType::kFloat32 && chance(0.2)) {
      c_.output_type = "float32";
    }
    if (c_.pass == Pass::kBackward && c_.dtype != DataType::kFloat32 && chance(0.3)) c_.grad_type = "float32";
    c_.batch = integer(1, 3);
    c_.q = c_.pass == Pass::kForward && chance(0.3) ? integer(1, 4) : length();
    c_.k = length();
    c_.kv_heads = integer(1, 3);
    c_.query_heads = c_.kv_heads * random_.pick({1, 1, 2, 4});
    c_.head_dim = dim();
    c_.value_dim = chance(0.6) ? c_.head_dim : dim();
    c_.layout = random_.pick({"bshd", "bshd", "bhsd", "padded", "fused"});
    if (chance(0.1)) c_.inputs = "integers";
    if (chance(0.1)) c_.inputs = "huge";
  }

  void draw_cache() {
    c_.k = std::max<std::int64_t>(c_.k, 4);
    if (chance(0.5)) {
      c_.page_size = random_.pick({1, 3, 16, 64});
      c_.k = (c_.k + c_.page_size - 1) / c_.page_size * c_.page_size;
    } else {
      c_.cache_rows = c_.batch + integer(0, 2);
    }
    const bool rotates = size_of(c_.dtype) > 1 && c_.head_dim > 1 && chance(0.4);
    const bool appends = rotates || chance(0.4);
    if (appends) c_.append = integer(1, std::min<std::int64_t>(c_.k, 5));
    c_.key_lengths = one_per_sequence(0, c_.k - c_.append);
    if (chance(0.2)) c_.query_lengths = one_per_sequence(0, c_.q);
    if (rotates) {
      c_.rotary_dim = chance(0.5) ? c_.head_dim / 2 * 2 : integer(1, c_.head_dim / 2) * 2;
      c_.rotary_halves = chance(0.5);
      if (chance(0.3)) c_.rotary_type = name_of(c_.dtype);
      // Rotary refuses queries before the first key.
      c_.q = std::min(c_.q, c_.append + *std::min_element(c_.key_lengths.begin(), c_.key_lengths.end()));
      for (std::int64_t& used : c_.query_lengths) used = std::min(used, c_.q);
    }
  }

  void draw_packed() {
    c_.packed_queries = one_per_sequence(0, std::max<std::int64_t>(c_.q, 1));
    c_.packed_keys = chance(0.5) ? c_.packed_queries : one_per_sequence(0, std::max<std::int64_t>(c_.k, 1));
    const auto fractions = [&](const Case::Integers& rows) {
      Case::Integers used = rows;
      for (std::int64_t& n : used) n = integer(0, n);
      return used;
    };
    if (chance(0.2)) c_.query_lengths = fractions(c_.packed_queries);
    if (chance(0.2)) c_.key_lengths = fractions(c_.packed_keys);
  }

  void draw_lengths() {
    if (chance(0.6)) c_.key_lengths = one_per_sequence(0, c_.k);
    if (c_.key_lengths.empty() || chance(0.4)) c_.query_lengths = one_per_sequence(0, c_.q);
  }

  void draw_scores() {
    if (chance(0.2)) c_.scale = float(integer(1, 64)) / 64.0f;
    if (chance(0.15)) c_.softcap = float(integer(1, 50));
    if (chance(0.2)) {
      c_.bias = axes("bhqk");
      if (size_of(c_.dtype) == 2 && chance(0.5)) c_.bias_type = name_of(c_.dtype);
    }
    if (chance(0.15)) c_.alibi = chance(0.5) ? "h" : "bh";
    c_.sink = chance(0.2);
    if (chance(0.15)) {
      c_.dropout = float(integer(1, 15)) / 16.0f;
      if (chance(0.5)) c_.dropout_offset = random_.bits() >> integer(0, 50);
    }
  }

  void draw_visibility() {
    c_.causal = chance(0.35);
    if (chance(0.25)) c_.window_left = integer(0, 70);
    if (chance(0.15)) c_.window_right = integer(0, 40);
    c_.top_left = chance(0.25);
    if (chance(0.1)) c_.prefix = integer(1, 40);
    if (c_.prefix == 0 && chance(0.1)) c_.prefix_lengths = one_per_sequence(0, 60);
    if (chance(0.15)) c_.mask = axes("bhqk");
    if (chance(0.15)) {
      c_.block_mask = axes("bh");
      c_.block_rows = random_.pick({1, 16, 32, 50, 64, 128});
      c_.block_columns = random_.pick({1, 16, 32, 50, 64, 128});
    }
    if (chance(0.15)) {
      const bool alike = !c_.cached() && (c_.packed_queries.empty() ? c_.q == c_.k && c_.packed_keys.empty()
                                                                    : c_.packed_queries == c_.packed_keys);
      c_.documents = alike && chance(0.6) ? "shared" : "apart";
    }
  }

  void draw_execution() {
    c_.poison_unseen = chance(0.4);
    if (c_.pass == Pass::kForward) {
      if (chance(0.2)) c_.splits = integer(1, 4);
      c_.no_lse = chance(0.2);
    } else {
      c_.grad_lse = chance(0.3);
      c_.relaxed = chance(0.2);
      if (chance(0.25)) c_.grads = random_.pick({"q", "k", "v", "qk", "kv", "qv", "qkv"});
      if (!c_.grads.empty() && !c_.bias.empty() && chance(0.3)) c_.grads = "b";
      if (!c_.grads.empty() && c_.sink && chance(0.3)) c_.grads = "s";
    }
    c_.batch_invariant = chance(0.2);
  }

  Case c_;
  Random random_;
};

}  // namespace

Case random_case(std::uint64_t seed) { return Generator(seed).draw(); }

}  // namespace strobe::cases
