// The SIMD verbs of every instruction set of this machine against scalar arithmetic.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/half.hpp"
#include "base/philox.hpp"
#include "cases/random.hpp"
#include "cases/run.hpp"
#include "cpu/cpu.hpp"
#include "probe.hpp"

namespace strobe::cpu {
namespace {

using Function = void (*)(const float*, float*);

class Simd : public testing::TestWithParam<Isa> {
 protected:
  const Probe& probe() const { return pick_probe(GetParam()); }

  std::vector<float> map(Function function, std::vector<float> x) const {
    const auto lanes = static_cast<std::size_t>(probe().lanes);
    x.resize((x.size() + lanes - 1) / lanes * lanes);
    std::vector<float> y(x.size());
    for (std::size_t n = 0; n < x.size(); n += lanes) function(&x[n], &y[n]);
    return y;
  }
};

INSTANTIATE_TEST_SUITE_P(Machine, Simd, testing::ValuesIn(cases::instruction_sets()),
                         [](const auto& isa) { return name_of(isa.param); });

std::vector<float> numbers(float first, float last, int count) {
  std::vector<float> x;
  for (int n = 0; n < count; ++n) x.push_back(first + (last - first) * float(n) / float(count - 1));
  return x;
}

TEST_P(Simd, Exp2IsExactToAboutOneUnit) {
  const auto x = numbers(-125.0f, 127.0f, 100000);
  const auto y = map(probe().exp2, x);
  for (std::size_t n = 0; n < x.size(); ++n) {
    const double exact = std::exp2(double(x[n]));
    EXPECT_NEAR(y[n] / exact, 1.0, 2.0 * 0x1p-23) << x[n];
  }
}

TEST_P(Simd, Exp2OfItsEnds) {
  const auto y = map(probe().exp2, {-HUGE_VALF, -1000.0f, -300.0f, 0.0f, 1.0f, -1.0f, NAN});
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 0.0f);
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_EQ(y[3], 1.0f);
  EXPECT_EQ(y[4], 2.0f);
  EXPECT_EQ(y[5], 0.5f);
  EXPECT_TRUE(std::isnan(y[6]));
}

TEST_P(Simd, CoarseExp2SuitsRoundingToBFloat16) {
  if (probe().exp2_coarse == nullptr) GTEST_SKIP() << "used with AMX only";
  const auto x = numbers(-125.0f, 127.0f, 100000);
  const auto y = map(probe().exp2_coarse, x);
  for (std::size_t n = 0; n < x.size(); ++n) {
    EXPECT_NEAR(y[n] / std::exp2(double(x[n])), 1.0, 4e-6) << x[n];
  }
  const auto ends = map(probe().exp2_coarse, {-HUGE_VALF, -1000.0f, -126.5f, 0.0f, 1.0f, -1.0f, NAN});
  const float expected[] = {0.0f, 0.0f, 0.0f, 1.0f, 2.0f, 0.5f};
  for (int n = 0; n < 6; ++n) EXPECT_EQ(ends[n], expected[n]);
  EXPECT_TRUE(std::isnan(ends[6]));
}

TEST_P(Simd, TileRegistersMultiplyPairs) {
  if (probe().multiply_tiles == nullptr) GTEST_SKIP() << "there are none";
  const auto allows = this_machine().allows_tiles;
  if (allows != nullptr && !allows()) GTEST_SKIP() << "the system refuses them";
  cases::Random random(8);
  const auto small = [&] { return float(random.integer(-9, 9)); };
  std::vector<float> a(16 * 32), b(32 * 16), sum(16 * 16);
  std::vector<std::uint16_t> a_words(a.size()), b_words(b.size());
  for (float& x : sum) x = small();
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t k = 0; k < 32; ++k) a_words[row * 32 + k] = bfloat16_from_float(a[row * 32 + k] = small());
  }
  for (std::size_t k = 0; k < 32; ++k) {
    for (std::size_t column = 0; column < 16; ++column) {
      const float x = b[k * 16 + column] = small();
      b_words[(k / 2 * 16 + column) * 2 + k % 2] = bfloat16_from_float(x);
    }
  }
  std::vector<float> expected = sum;
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 16; ++column) {
      for (std::size_t k = 0; k < 32; ++k) expected[row * 16 + column] += a[row * 32 + k] * b[k * 16 + column];
    }
  }
  probe().multiply_tiles(a_words.data(), b_words.data(), sum.data());
  EXPECT_EQ(sum, expected);
}

/// Elements of two vectors of 16, and what the pieces of each add up to, the smallest first.
struct Pieces {
  std::vector<float> x, sum;
  std::vector<std::uint16_t> words = std::vector<std::uint16_t>(3 * 32);

  explicit Pieces(std::vector<float> elements) : x(std::move(elements)) {}
  /// Of element n, whose pieces lie at place(n).
  void add_up(std::size_t (*place)(std::size_t)) {
    sum.resize(x.size());
    for (std::size_t n = 0; n < x.size(); ++n) {
      const auto piece = [&](std::size_t i) { return float_from_bfloat16(words[i * 32 + place(n)]); };
      sum[n] = piece(2) + piece(1) + piece(0);
    }
  }
};
std::size_t in_pairs(std::size_t n) { return n % 16 * 2 + n / 16; }
std::size_t in_a_row(std::size_t n) { return n; }

TEST_P(Simd, ThreePiecesAreAFloat) {
  if (probe().split_pairs == nullptr) GTEST_SKIP() << "only for tile registers";
  cases::Random random(9);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> x(32);
    for (float& element : x) element = std::ldexp(float(2.0 * random.uniform() - 1.0), int(random.integer(-60, 127)));
    Pieces pieces(x);
    probe().split_pairs(x.data(), x.data() + 16, pieces.words.data());
    pieces.add_up(in_pairs);
    EXPECT_EQ(pieces.sum, x);
    probe().cut_pairs(x.data(), x.data() + 16, pieces.words.data());
    pieces.add_up(in_pairs);
    EXPECT_EQ(pieces.sum, x);
    probe().split_row(x.data(), x.data() + 16, pieces.words.data());
    pieces.add_up(in_a_row);
    EXPECT_EQ(pieces.sum, x);
  }
}

TEST_P(Simd, PiecesOfExtremes) {
  if (probe().split_row == nullptr) GTEST_SKIP() << "only for tile registers";
  const float most = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x(32, 0.0f);
  x[0] = most, x[1] = -most, x[2] = infinity, x[3] = -infinity, x[4] = std::nanf(""), x[5] = -0.0f;
  x[16] = 3.3961775e38f;  // rounds to infinity, but is none
  Pieces pieces(x);
  const auto expect_extremes = [&] {
    for (const std::size_t n : {0, 1, 2, 3, 5, 16, 31}) EXPECT_EQ(pieces.sum[n], x[n]) << n;
    EXPECT_TRUE(std::isnan(pieces.sum[4]));
  };
  probe().split_pairs(x.data(), x.data() + 16, pieces.words.data());
  pieces.add_up(in_pairs);
  expect_extremes();
  probe().split_row(x.data(), x.data() + 16, pieces.words.data());
  pieces.add_up(in_a_row);
  expect_extremes();
}

TEST_P(Simd, TanhIsExactToAFewUnits) {
  for (const float range : {0.01f, 1.0f, 12.0f}) {
    const auto x = numbers(-range, range, 50001);
    const auto y = map(probe().tanh, x);
    for (std::size_t n = 0; n < x.size(); ++n) {
      const double exact = std::tanh(double(x[n]));
      EXPECT_NEAR(y[n], exact, 4.0 * 0x1p-24 * std::abs(exact) + 1e-12) << x[n];
    }
  }
  const auto ends = map(probe().tanh, {HUGE_VALF, -HUGE_VALF, 1e30f});
  EXPECT_EQ(ends[0], 1.0f);
  EXPECT_EQ(ends[1], -1.0f);
  EXPECT_EQ(ends[2], 1.0f);
}

TEST_P(Simd, TanhSlopeIsExactToAFewUnitsHoweverSmall) {
  for (const float range : {0.01f, 1.0f, 30.0f}) {
    const auto x = numbers(-range, range, 50001);
    const auto y = map(probe().tanh_slope, x);
    for (std::size_t n = 0; n < x.size(); ++n) {
      const double exact = 1.0 / (std::cosh(double(x[n])) * std::cosh(double(x[n])));
      // The argument of the exponential is rounded, which its result feels in proportion to its size.
      EXPECT_NEAR(y[n], exact, (6.0 + 3.0 * std::abs(x[n])) * 0x1p-24 * exact) << x[n];
    }
  }
  const auto ends = map(probe().tanh_slope, {HUGE_VALF, -HUGE_VALF, 0.0f});
  EXPECT_EQ(ends[0], 0.0f);
  EXPECT_EQ(ends[1], 0.0f);
  EXPECT_EQ(ends[2], 1.0f);
}

TEST_P(Simd, RoundGoesToTheNearestEven) {
  const auto y = map(probe().round, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49f, 7.51f, -3.2f});
  const float expected[] = {0, 2, 2, 0, -2, 0, 8, -3};
  for (int n = 0; n < 8; ++n) EXPECT_EQ(y[n], expected[n]);
}

TEST_P(Simd, LanesAddMultiplyCompareAndReduce) {
  const int lanes = probe().lanes;
  cases::Random random(3);
  std::vector<float> a, b, c, y(static_cast<std::size_t>(lanes));
  for (int n = 0; n < lanes; ++n) {
    a.push_back(float(random.integer(-100, 100)));
    b.push_back(float(random.integer(-100, 100)));
    c.push_back(float(random.integer(-100, 100)));
  }
  probe().fma(a.data(), b.data(), c.data(), y.data());
  float sum = 0, largest = -HUGE_VALF;
  for (int n = 0; n < lanes; ++n) {
    EXPECT_EQ(y[n], a[n] * b[n] + c[n]);
    sum += a[n];
    largest = std::max(largest, a[n]);
  }
  EXPECT_EQ(probe().sum(a.data()), sum);
  EXPECT_EQ(probe().largest(a.data()), largest);
  probe().select_less(a.data(), b.data(), y.data());
  for (int n = 0; n < lanes; ++n) EXPECT_EQ(y[n], std::min(a[n], b[n]));
}

TEST_P(Simd, LoadsEveryNarrowCode) {
  const auto lanes = static_cast<std::uint32_t>(probe().lanes);
  const auto expect_same = [](float actual, float expected, std::uint32_t code) {
    EXPECT_TRUE(std::bit_cast<std::uint32_t>(actual) == std::bit_cast<std::uint32_t>(expected) ||
                (std::isnan(actual) && std::isnan(expected)))
        << code << ": " << actual << ", not " << expected;
  };
  std::vector<std::uint16_t> wide(lanes);
  std::vector<std::uint8_t> narrow(lanes);
  std::vector<float> y(lanes);
  for (std::uint32_t first = 0; first < 65536; first += lanes) {
    for (std::uint32_t n = 0; n < lanes; ++n) wide[n] = std::uint16_t(first + n);
    probe().load_half(wide.data(), y.data());
    for (std::uint32_t n = 0; n < lanes; ++n) expect_same(y[n], float_from_half(wide[n]), wide[n]);
    probe().load_bfloat16(wide.data(), y.data());
    for (std::uint32_t n = 0; n < lanes; ++n) expect_same(y[n], float_from_bfloat16(wide[n]), wide[n]);
  }
  for (std::uint32_t first = 0; first < 256; first += lanes) {
    for (std::uint32_t n = 0; n < lanes; ++n) narrow[n] = std::uint8_t(first + n);
    probe().load_e4m3(narrow.data(), y.data());
    for (std::uint32_t n = 0; n < lanes; ++n) expect_same(y[n], float_from_e4m3(narrow[n]), narrow[n]);
    probe().load_e5m2(narrow.data(), y.data());
    for (std::uint32_t n = 0; n < lanes; ++n) expect_same(y[n], float_from_e5m2(narrow[n]), narrow[n]);
  }
}

TEST_P(Simd, StoresNarrowFloatsAsTheDefinitionRounds) {
  const auto lanes = static_cast<std::size_t>(probe().lanes);
  std::vector<float> x;
  cases::Random random(11);
  for (int n = 0; n < 200000; ++n) x.push_back(std::bit_cast<float>(std::uint32_t(random.bits())));
  for (const float special :
       {0.0f, -0.0f, 65504.0f, 65519.9f, 65520.0f, 6e-8f, 2.9802322e-8f, HUGE_VALF, -HUGE_VALF, NAN}) {
    x.push_back(special);
  }
  x.resize((x.size() + lanes - 1) / lanes * lanes);
  std::vector<std::uint16_t> half(lanes), bfloat16(lanes);
  for (std::size_t first = 0; first < x.size(); first += lanes) {
    probe().store_half(&x[first], half.data());
    probe().store_bfloat16(&x[first], bfloat16.data());
    for (std::size_t n = 0; n < lanes; ++n) {
      const float value = x[first + n];
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(float_from_half(half[n])));
        EXPECT_TRUE(std::isnan(float_from_bfloat16(bfloat16[n])));
      } else {
        EXPECT_EQ(half[n], half_from_float(value)) << value;
        EXPECT_EQ(bfloat16[n], bfloat16_from_float(value)) << value;
      }
    }
  }
}

TEST_P(Simd, PartialVectorsTouchNothingElse) {
  const int lanes = probe().lanes;
  for (int count = 0; count <= lanes; ++count) {
    std::vector<float> x(static_cast<std::size_t>(count), 3.0f), y(static_cast<std::size_t>(lanes) + 1, -1.0f);
    probe().copy_first(x.data(), count, y.data());
    std::vector<std::uint16_t> narrow(static_cast<std::size_t>(count), 0x4040), out(y.size(), 0xbf80);
    probe().copy_first_bfloat16(narrow.data(), count, out.data());
    for (int n = 0; n <= lanes; ++n) {
      EXPECT_EQ(y[n], n < count ? 3.0f : -1.0f);
      EXPECT_EQ(out[n], n < count ? 0x4040 : 0xbf80);
    }
  }
}

TEST_P(Simd, TransposeSwapsRowsAndColumns) {
  const int lanes = probe().lanes;
  std::vector<float> square;
  for (int n = 0; n < lanes * lanes; ++n) square.push_back(float(n));
  probe().transpose(square.data());
  for (int row = 0; row < lanes; ++row) {
    for (int column = 0; column < lanes; ++column) EXPECT_EQ(square[row * lanes + column], float(column * lanes + row));
  }
}

TEST_P(Simd, PhiloxDrawsWhatItsDefinitionDraws) {
  const auto lanes = static_cast<std::size_t>(probe().lanes);
  cases::Random random(5);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::array<std::uint32_t, 4>> counters(lanes);
    for (auto& counter : counters) {
      for (std::uint32_t& word : counter) word = std::uint32_t(random.bits());
    }
    const std::uint64_t key = random.bits();
    auto drawn = counters;
    probe().philox(reinterpret_cast<std::uint32_t(*)[4]>(drawn.data()), key);
    for (std::size_t n = 0; n < lanes; ++n) EXPECT_EQ(drawn[n], philox(counters[n], key));
  }
}

/// The known answers that the authors of Philox publish with it (Random123's kat_vectors).
TEST(Philox, GivesThePublishedAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

}  // namespace
}  // namespace strobe::cpu
