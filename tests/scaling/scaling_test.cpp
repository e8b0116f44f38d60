// What the library promises about growth: memory linear in length, and time proportional to the tiles that a block mask
// keeps. Measured coarsely, with wide margins.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "cases/random.hpp"
#include "sanitized.hpp"
#include "strobe/strobe.hpp"

namespace strobe::cases {
namespace {

/// Peak resident memory of the process in bytes, and its reset to what is resident now.
std::size_t peak_bytes() {
  std::FILE* status = std::fopen("/proc/self/status", "r");
  if (status == nullptr) return 0;
  char line[256];
  unsigned long kilobytes = 0;
  while (std::fgets(line, sizeof line, status) != nullptr) {
    if (std::sscanf(line, "VmHWM: %lu", &kilobytes) == 1) break;
  }
  std::fclose(status);
  return kilobytes << 10;
}
bool reset_peak() {
  std::FILE* file = std::fopen("/proc/self/clear_refs", "w");
  if (file == nullptr) return false;
  const bool written = std::fputs("5", file) >= 0;
  return std::fclose(file) == 0 && written;
}

/// One head of float32 attention over `length` queries and keys.
struct Long {
  explicit Long(std::int64_t n, std::int64_t dim) : length(n), head_dim(dim) {
    Random random(1);
    for (auto* tensor : {&query, &key, &value, &grad_output}) {
      tensor->resize(static_cast<std::size_t>(n * dim));
      for (float& x : *tensor) x = float(random.uniform() * 2 - 1);
    }
    for (auto* tensor : {&output, &grad_query, &grad_key, &grad_value}) tensor->assign(query.size(), 1.0f);
    lse.assign(static_cast<std::size_t>(n), 1.0f);
  }
  Tensor rows(std::vector<float>& data) const {
    return Tensor::contiguous(data.data(), DataType::kFloat32, {1, length, 1, head_dim});
  }
  Attention attention() { return {.query = rows(query), .key = rows(key), .value = rows(value)}; }
  Tensor lse_tensor() { return Tensor::contiguous(lse.data(), DataType::kFloat32, {1, 1, length}); }
  void forward(const Attention& attention) {
    strobe::forward(attention, {.output = rows(output), .lse = lse_tensor()});
  }
  void backward(const Attention& attention) {
    strobe::backward(
        attention, {.output = rows(output), .lse = lse_tensor(), .grad_output = rows(grad_output), .grad_lse = {}},
        {.query = rows(grad_query), .key = rows(grad_key), .value = rows(grad_value), .bias = {}, .sink = {}});
  }

  std::int64_t length, head_dim;
  std::vector<float> query, key, value, output, lse, grad_output, grad_query, grad_key, grad_value;
};

TEST(Memory, IsLinearInLength) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own memory would be measured";
  Long problem(1 << 15, 64);
  const Attention attention = problem.attention();
  for (const auto pass : {&Long::forward, &Long::backward}) {
    ASSERT_TRUE(reset_peak());
    const std::size_t before = peak_bytes();
    ASSERT_GT(before, 0u);
    (problem.*pass)(attention);
    EXPECT_LT(peak_bytes() - before, std::size_t(64) << 20);
  }
}

double seconds(const std::function<void()>& call) {
  double best = HUGE_VAL;
  for (int round = 0; round < 5; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

TEST(BlockMask, TakesTimeForTheTilesThatItKeeps) {
  constexpr int kTile = 128, kTiles = 16;
  Long problem(kTile * kTiles, 64);
  Attention attention = problem.attention();
  std::vector<unsigned char> tiles(kTiles * kTiles, 1);
  attention.block_mask = Tensor::contiguous(tiles.data(), DataType::kBool, {1, 1, kTiles, kTiles});
  attention.block_rows = attention.block_columns = kTile;
  for (const auto pass : {&Long::forward, &Long::backward}) {
    std::fill(tiles.begin(), tiles.end(), std::uint8_t(1));
    (problem.*pass)(attention);
    const double all = seconds([&] { (problem.*pass)(attention); });
    for (int n = 0; n < kTiles * kTiles; ++n) tiles[static_cast<std::size_t>(n)] = n % kTiles == n / kTiles;
    const double diagonal = seconds([&] { (problem.*pass)(attention); });
    EXPECT_LT(diagonal, 0.3 * all) << "a sixteenth of the tiles";
  }
}

TEST(Window, TakesTimeForTheKeysThatItKeeps) {
  Long problem(4096, 64);
  Attention attention = problem.attention();
  for (const auto pass : {&Long::forward, &Long::backward}) {
    attention.window_left.reset();
    const double all = seconds([&] { (problem.*pass)(attention); });
    attention.window_left = attention.window_right = 128;
    const double window = seconds([&] { (problem.*pass)(attention); });
    attention.window_right.reset();
    EXPECT_LT(window, 0.4 * all);
  }
}

}  // namespace
}  // namespace strobe::cases
