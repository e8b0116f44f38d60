// The reference by itself, judged by identities that hold for attention whatever the numbers are. Whoever judges the
// kernels must pass these first.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.hpp"
#include "cases/instance.hpp"
#include "reference/reference.hpp"

namespace strobe::cases {
namespace {

using reference::Arithmetic;

float* floats(const Tensor& tensor) { return static_cast<float*>(tensor.data); }

reference::ForwardResult attend(const Instance& instance) {
  return reference::forward(instance.checked.problem, instance.checked.buffers, Arithmetic::kExact);
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = a.size() == b.size() ? 0 : HUGE_VAL;
  for (std::size_t n = 0; n < a.size() && n < b.size(); ++n) {
    if (a[n] != b[n]) largest = std::max(largest, std::abs(a[n] - b[n]));
  }
  return largest;
}

TEST(Reference, ConstantValuesComeBack) {
  const auto instance = build(parse_case("batch=2 q=9 k=21 heads=4/2 dim=16/5 causal softcap=5 alibi=h bias=hqk"));
  std::fill_n(floats(instance->attention.value), instance->attention.value.elements(), 2.5f);
  const auto result = attend(*instance);
  for (std::size_t row = 0; row < result.lse.size(); ++row) {
    for (int d = 0; d < 5; ++d) EXPECT_NEAR(result.output[row * 5 + d], 2.5, 1e-14);
  }
}

TEST(Reference, AValueOfOnesWithASinkGivesTheWeightThatTheSinkLeaves) {
  const auto instance = build(parse_case("q=7 k=12 heads=2 dim=8/1 sink"));
  std::fill_n(floats(instance->attention.value), instance->attention.value.elements(), 1.0f);
  const auto result = attend(*instance);
  for (int i = 0; i < 7; ++i) {
    for (int h = 0; h < 2; ++h) {
      const double weight_of_sink = std::exp(floats(instance->attention.sink)[h] - result.lse[h * 7 + i]);
      EXPECT_NEAR(result.output[i * 2 + h], 1.0 - weight_of_sink, 1e-14);
    }
  }
}

TEST(Reference, PermutingKeysChangesNothing) {
  const auto instance = build(parse_case("q=6 k=15 heads=2 dim=8/8 softcap=3 mask=q"));
  const auto before = attend(*instance);
  constexpr int kRow = 2 * 8;
  for (const Tensor& tensor : {instance->attention.key, instance->attention.value}) {
    for (int j = 0; j < 15 / 2; ++j) {
      std::swap_ranges(floats(tensor) + j * kRow, floats(tensor) + (j + 1) * kRow, floats(tensor) + (14 - j) * kRow);
    }
  }
  const auto after = attend(*instance);
  EXPECT_LT(largest_difference(before.output, after.output), 1e-13);
  EXPECT_LT(largest_difference(before.lse, after.lse), 1e-13);
}

TEST(Reference, HalvesMergeToTheWhole) {
  const auto whole = build(parse_case("q=5 k=16 heads=3 dim=8/4"));
  const auto first = build(parse_case("q=5 k=7 heads=3 dim=8/4"));
  const auto second = build(parse_case("q=5 k=9 heads=3 dim=8/4"));
  for (Instance* part : {first.get(), second.get()}) {
    const int begin = part == first.get() ? 0 : 7;
    std::copy_n(floats(whole->attention.query), 5 * 3 * 8, floats(part->attention.query));
    std::copy_n(floats(whole->attention.key) + begin * 3 * 8, part->attention.key.elements(),
                floats(part->attention.key));
    std::copy_n(floats(whole->attention.value) + begin * 3 * 4, part->attention.value.elements(),
                floats(part->attention.value));
  }
  const auto all = attend(*whole), a = attend(*first), b = attend(*second);
  for (int i = 0; i < 5; ++i) {
    for (int h = 0; h < 3; ++h) {
      const double lse_a = a.lse[h * 5 + i], lse_b = b.lse[h * 5 + i];
      const double lse = std::log(std::exp(lse_a) + std::exp(lse_b));
      EXPECT_NEAR(lse, all.lse[h * 5 + i], 1e-13);
      for (int d = 0; d < 4; ++d) {
        const int at = (i * 3 + h) * 4 + d;
        EXPECT_NEAR(std::exp(lse_a - lse) * a.output[at] + std::exp(lse_b - lse) * b.output[at], all.output[at], 1e-13);
      }
    }
  }
}

TEST(Reference, PackedSequencesAreSequencesOfTheirOwn) {
  const auto packed = build(parse_case("batch=2 packed_queries=3,6 packed_keys=8,5 heads=2/1 dim=4/4 causal"));
  const auto together = attend(*packed);
  const int queries[] = {3, 6}, keys[] = {8, 5};
  int first_query = 0, first_key = 0;
  for (int b = 0; b < 2; ++b) {
    const auto alone = build(
        parse_case("q=" + std::to_string(queries[b]) + " k=" + std::to_string(keys[b]) + " heads=2/1 dim=4/4 causal"));
    std::copy_n(floats(packed->attention.query) + first_query * 8, queries[b] * 8, floats(alone->attention.query));
    std::copy_n(floats(packed->attention.key) + first_key * 4, keys[b] * 4, floats(alone->attention.key));
    std::copy_n(floats(packed->attention.value) + first_key * 4, keys[b] * 4, floats(alone->attention.value));
    const auto result = attend(*alone);
    for (int n = 0; n < queries[b] * 8; ++n) EXPECT_EQ(result.output[n], together.output[first_query * 8 + n]);
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < queries[b]; ++i) {
        EXPECT_EQ(result.lse[h * queries[b] + i], together.lse[h * 9 + first_query + i]);
      }
    }
    first_query += queries[b];
    first_key += keys[b];
  }
}

TEST(Reference, PagesHoldWhatADenseCacheHolds) {
  const char* options = " batch=2 q=3 k=24 heads=4/2 dim=8/8 key_lengths=17,24 causal window=9,-";
  const auto paged = build(parse_case("page=6" + std::string(options)));
  const auto dense = build(parse_case("cache_rows=2" + std::string(options)));
  std::copy_n(floats(paged->attention.query), paged->attention.query.elements(), floats(dense->attention.query));
  constexpr int kRow = 2 * 8;
  const auto* table = static_cast<const std::int32_t*>(paged->attention.page_table.data);
  const auto* rows = static_cast<const std::int32_t*>(dense->attention.cache_batch_index.data);
  for (int b = 0; b < 2; ++b) {
    for (int j = 0; j < (b == 0 ? 17 : 24); ++j) {
      const int from = (table[b * 4 + j / 6] * 6 + j % 6) * kRow, to = (rows[b] * 24 + j) * kRow;
      std::copy_n(floats(paged->attention.key) + from, kRow, floats(dense->attention.key) + to);
      std::copy_n(floats(paged->attention.value) + from, kRow, floats(dense->attention.value) + to);
    }
  }
  const auto a = attend(*paged), b = attend(*dense);
  EXPECT_EQ(a.output, b.output);
  EXPECT_EQ(a.lse, b.lse);
}

TEST(Reference, RowsThatSeeNothingAreZero) {
  const auto instance = build(parse_case("batch=2 q=5 k=3 dim=4/4 causal query_lengths=5,4 key_lengths=3,0"));
  const auto result = attend(*instance);
  const auto sees_nothing = [](int b, int i) { return b == 1 || i < 2; };
  for (int b = 0; b < 2; ++b) {
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(std::isinf(result.lse[b * 5 + i]), sees_nothing(b, i));
      for (int d = 0; d < 4 && sees_nothing(b, i); ++d) EXPECT_EQ(result.output[(b * 5 + i) * 4 + d], 0.0);
    }
  }
}

TEST(Reference, ARowThatSeesNothingHasTheSinkAsItsLse) {
  const auto instance = build(parse_case("q=2 k=0 dim=4/4 sink"));
  const auto result = attend(*instance);
  EXPECT_EQ(result.output, std::vector<double>(8, 0.0));
  EXPECT_EQ(result.lse, std::vector<double>(2, floats(instance->attention.sink)[0]));
}

/// The weights of one head, read out by making V the identity.
std::vector<double> weights(const char* options, int keys) {
  const auto instance =
      build(parse_case("q=8 k=" + std::to_string(keys) + " dim=4/" + std::to_string(keys) + " " + options));
  for (int j = 0; j < keys; ++j) {
    for (int d = 0; d < keys; ++d) floats(instance->attention.value)[j * keys + d] = j == d ? 1.0f : 0.0f;
  }
  return attend(*instance).output;
}

/// "x" where a key has weight, one line a query.
std::string picture(const std::vector<double>& weights, int keys) {
  std::string lines;
  for (std::size_t n = 0; n < weights.size(); ++n) {
    lines += weights[n] > 0 ? 'x' : '.';
    if ((n + 1) % std::size_t(keys) == 0) lines += '\n';
  }
  return lines;
}

TEST(Reference, DrawsTheMasksOfTheDocumentation) {
  EXPECT_EQ(picture(weights("causal", 10), 10),
            "xxx.......\nxxxx......\nxxxxx.....\nxxxxxx....\nxxxxxxx...\nxxxxxxxx..\nxxxxxxxxx.\nxxxxxxxxxx\n");
  EXPECT_EQ(picture(weights("causal top_left", 4), 4), "x...\nxx..\nxxx.\nxxxx\nxxxx\nxxxx\nxxxx\nxxxx\n");
  EXPECT_EQ(picture(weights("window=1,2 top_left", 6), 6),
            "xxx...\nxxxx..\n.xxxx.\n..xxxx\n...xxx\n....xx\n.....x\n......\n");
  EXPECT_EQ(picture(weights("causal window=1,- prefix=2", 8), 8),
            "xx......\nxx......\nxxx.....\nxxxx....\nxx.xx...\nxx..xx..\nxx...xx.\nxx....xx\n");
}

TEST(Reference, DropoutKeepsTheRightShareAndItsMean) {
  const auto kept = weights("dropout=0.25 seed=3", 64), all = weights("seed=3", 64);
  int count = 0;
  for (std::size_t n = 0; n < kept.size(); ++n) {
    if (kept[n] == 0) continue;
    ++count;
    EXPECT_NEAR(kept[n], all[n] / 0.75, 1e-14);
  }
  EXPECT_NEAR(count / double(kept.size()), 0.75, 0.08);
}

TEST(Reference, StandardArithmeticErrsAsItsTypeDoes) {
  for (const auto& [type, least, most] :
       {std::tuple{"float32", 1e-9, 2e-6}, std::tuple{"float16", 1e-5, 3e-3}, std::tuple{"bfloat16", 1e-4, 3e-2}}) {
    const auto instance = build(parse_case("q=40 k=40 dim=64 dtype=" + std::string(type)));
    const auto standard =
        reference::forward(instance->checked.problem, instance->checked.buffers, Arithmetic::kStandard);
    const double error = largest_difference(standard.output, attend(*instance).output);
    EXPECT_GT(error, least) << type;
    EXPECT_LT(error, most) << type;
  }
}

TEST(Reference, AppendRotatesByThePosition) {
  const auto instance = build(parse_case("q=1 k=16 dim=4/4 key_lengths=5 append=2 rotary=4 cache_rows=1"));
  const auto appended = reference::append(instance->checked.problem, instance->checked.buffers);
  const float* key = floats(instance->attention.new_key);
  for (int n = 0; n < 2; ++n) {
    for (int pair = 0; pair < 2; ++pair) {
      const double angle = (5 + n) * std::pow(10000.0, -pair / 32.0);
      const double x = key[n * 4 + 2 * pair], y = key[n * 4 + 2 * pair + 1];
      EXPECT_NEAR(appended.key[n * 4 + 2 * pair], x * std::cos(angle) - y * std::sin(angle), 1e-6);
      EXPECT_NEAR(appended.key[n * 4 + 2 * pair + 1], x * std::sin(angle) + y * std::cos(angle), 1e-6);
    }
  }
}

}  // namespace
}  // namespace strobe::cases
