// The case grammar: lines and cases turn into each other, and what is no case is refused by name.
#include <gtest/gtest.h>

#include <set>

#include "cases/generate.hpp"
#include "cases/instance.hpp"

namespace strobe::cases {
namespace {

TEST(CaseGrammar, PrintsWhatItParses) {
  const char* line =
      "pass=backward dtype=bfloat16 batch=2 q=65 k=130 heads=8/2 dim=64/48 key_lengths=130,7 softcap=30 bias=hq sink "
      "causal window=16,- dropout=0.125 layout=bhsd seed=7";
  EXPECT_EQ(print_case(parse_case(line)), line);
}

TEST(CaseGrammar, RandomCasesSurviveTheRoundTrip) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const Case drawn = random_case(seed);
    EXPECT_EQ(parse_case(print_case(drawn)), drawn) << print_case(drawn);
  }
}

TEST(CaseGrammar, RefusesWhatItDoesNotKnow) {
  for (const char* line : {"colour=red", "causal=yes", "batch", "batch=two", "dtype=float17", "batch=2 key_lengths=1",
                           "layout=sideways", "window=3", "page=3 k=16 key_lengths=1", "bias=xyz", "append=2"}) {
    EXPECT_THROW(parse_case(line), Error) << line;
  }
}

TEST(RandomCases, AreAllValid) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const Case drawn = random_case(seed);
    EXPECT_NO_THROW(
        try { build(drawn); } catch (const Error& error) {
          ADD_FAILURE() << error.what() << "\n  " << print_case(drawn);
          throw;
        });
  }
}

TEST(RandomCases, TouchEveryOption) {
  std::set<std::string> words;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string line = print_case(random_case(seed));
    for (std::size_t begin = 0; begin < line.size();) {
      const std::size_t end = std::min(line.find(' ', begin), line.size());
      words.insert(line.substr(begin, std::min(line.find('=', begin), end) - begin));
      begin = end + 1;
    }
  }
  for (const char* word :
       {"output",         "grad_type", "packed_queries",  "packed_keys",   "query_lengths", "key_lengths", "cache_rows",
        "page",           "append",    "rotary",          "rotary_halves", "rotary_type",   "descale",     "scale",
        "softcap",        "bias",      "bias_type",       "alibi",         "sink",          "causal",      "window",
        "top_left",       "prefix",    "prefix_lengths",  "documents",     "mask",          "block_mask",  "dropout",
        "dropout_offset", "splits",    "batch_invariant", "relaxed",       "no_lse",        "grad_lse",    "grads",
        "layout",         "inputs",    "poison_unseen"}) {
    EXPECT_TRUE(words.count(word)) << word;
  }
}

}  // namespace
}  // namespace strobe::cases
