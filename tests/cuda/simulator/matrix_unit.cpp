// wgmma: descriptors of tiles, products under way, and what they want of fences.
#include "cuda/simulator/matrix_unit.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cuda/simulator/block.hpp"

namespace strobe::simulator {
namespace {

constexpr int kRows = MatrixUnits::kRows, kDepth = MatrixUnits::kDepth, kChunkElements = 8, kWarps = 4;
constexpr std::uint32_t kChunkBytes = 16, kRowBytes = 128, kRowsOfSwizzle = 8;

/// A tile in shared memory as wgmma finds it: PTX ISA, "Matrix Descriptor Format", under the 128-byte swizzle.
struct Tile {
  std::uint32_t start, leading_bytes, stride_bytes;
  bool transposed;  // its rows lie along M or N, not along K

  Tile(std::uint64_t descriptor, bool transposed)
      : start(std::uint32_t(descriptor & 0x3fff) << 4),
        leading_bytes(std::uint32_t(descriptor >> 16 & 0x3fff) << 4),
        stride_bytes(std::uint32_t(descriptor >> 32 & 0x3fff) << 4),
        transposed(transposed) {
    if (descriptor >> 62 != 1) fail("multiplies a tile that is not under the 128-byte swizzle");
    if ((descriptor >> 49 & 7) != 0) fail("multiplies a tile whose swizzle does not begin with the address");
  }

  /// Where eight neighbours of line `line` lie, the first of which is number 8 * `chunk`. Lines go along M or N, or,
  /// transposed, along K.
  std::uint32_t chunk_at(int line, int chunk) const {
    const std::uint32_t row = std::uint32_t(line) % kRowsOfSwizzle, rows = std::uint32_t(line) / kRowsOfSwizzle;
    const std::uint32_t chunks = kRowBytes / kChunkBytes, column = std::uint32_t(chunk);
    const std::uint32_t address =
        start + rows * stride_bytes + row * kRowBytes +
        (transposed ? column / chunks * leading_bytes + column % chunks * kChunkBytes : column * kChunkBytes);
    return swizzled(address);
  }

  /// Calls `act(line, chunk, address)` for elements [first, first + count) along M or N, all along K.
  template <typename Act>
  void for_chunks(int first, int count, Act act) const {
    const int first_line = transposed ? 0 : first, lines = transposed ? kDepth : count;
    const int first_chunk = transposed ? first / kChunkElements : 0;
    const int chunks = (transposed ? count : kDepth) / kChunkElements;
    for (int line = first_line; line < first_line + lines; ++line) {
      for (int chunk = first_chunk; chunk < first_chunk + chunks; ++chunk) act(line, chunk, chunk_at(line, chunk));
    }
  }
};

/// Reads [first, first + count) along M or N to `to`, where K goes by steps of `k_step` and the other by `step`.
void read_tile(const Tile& tile, Operand operand, int first, int count, float* to, int k_step, int step) {
  tile.for_chunks(first, count, [&](int line, int chunk, std::uint32_t address) {
    std::uint16_t elements[kChunkElements];
    std::memcpy(elements, shared_memory + address, sizeof elements);
    for (int n = 0; n < kChunkElements; ++n) {
      const int place = chunk * kChunkElements + n;
      const int k = tile.transposed ? line : place, other = (tile.transposed ? place : line) - first;
      to[k * k_step + other * step] = to_float(operand, elements[n]);
    }
  });
}

void look_at(const Tile& tile, int first, int count) {
  tile.for_chunks(first, count, [](int, int, std::uint32_t address) {
    shared(address, kChunkBytes, kChunkBytes);
    require_free(block->races.read_later(current_warp(), address, kChunkBytes), "multiplies");
  });
}

void look_at_factors(const WarpgroupProduct& what) {
  if (what.registers == nullptr) look_at(Tile(what.a, what.a_transposed), current_warp() % kWarps * kRows, kRows);
  look_at(Tile(what.b, what.b_transposed), 0, what.columns);
}

bool same(const WarpgroupProduct& a, const WarpgroupProduct& b) {
  return a.operand == b.operand && a.columns == b.columns && a.adds == b.adds && a.a == b.a && a.b == b.b &&
         a.a_transposed == b.a_transposed && a.b_transposed == b.b_transposed &&
         (a.registers == nullptr) == (b.registers == nullptr);
}

/// Where lane `lane` has element `n` of its sums: row and column.
struct SumPlace {
  int row, column;
  SumPlace(int lane, int n) : row(lane / 4 + n / 2 % 2 * 8), column(n / 4 * 8 + lane % 4 * 2 + n % 2) {}
};

}  // namespace

void MatrixUnits::start(int warps) {
  warps_.assign(std::size_t(warps), Warp());
  asked_.assign(std::size_t(warps + kWarps - 1) / kWarps, {});
  time_ = 0;
}

void MatrixUnits::ask(int number, const WarpgroupProduct (&lanes)[kLanes]) {
  Warp& warp = warps_[std::size_t(number)];
  const WarpgroupProduct& what = lanes[0];
  for (const WarpgroupProduct& lane : lanes) {
    if (!same(lane, what)) fail("multiplies with other descriptors than other lanes of its warp");
  }
  auto& asked = asked_[std::size_t(number / kWarps)];
  if (warp.count == asked.size()) asked.push_back(what);
  if (!same(asked[warp.count++], what)) fail("multiplies something else than other warps of its warpgroup");
  if (warp.fenced <= warp.published) fail("multiplies without wgmma.fence behind its last use of registers");

  const auto place =
      std::find_if(warp.sums.begin(), warp.sums.end(), [&](const Sums& sums) { return sums.registers[0] == what.d; });
  Sums& sums = place != warp.sums.end() ? *place : warp.sums.emplace_back();
  const std::size_t count = std::size_t(what.columns) / 2;  // of a lane
  if (place == warp.sums.end()) {
    sums.columns = what.columns;
    sums.values.resize(std::size_t(kRows * what.columns));
    for (int lane = 0; lane < kLanes; ++lane) {
      sums.registers[lane] = lanes[lane].d;
      for (std::size_t n = 0; n < count; ++n) {
        const SumPlace at(lane, int(n));
        sums.values[std::size_t(at.row * what.columns + at.column)] = lanes[lane].d[n];
      }
      std::fill_n(lanes[lane].d, count, std::numeric_limits<float>::quiet_NaN());
    }
  }
  sums.last_group = warp.group;

  Product product{.what = what, .left = {}, .sums = &sums, .group = warp.group};
  look_at_factors(what);
  if (what.registers != nullptr) {
    product.left.resize(std::size_t(kRows * kDepth));
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int n = 0; n < 8; ++n) {
        const std::uint32_t word = lanes[lane].registers[n / 2];
        const int row = lane / 4 + n / 2 % 2 * 8, k = lane % 4 * 2 + n % 2 + n / 4 * 8;
        product.left[std::size_t(row * kDepth + k)] = to_float(what.operand, std::uint16_t(word >> 16 * (n % 2)));
      }
    }
  }
  warp.products.push_back(std::move(product));
  if (draw(2) == 0) {
    for (Product& one : warp.products) {
      if (!one.done) work(number, one);
      if (draw(4) == 0) break;
    }
  }
}

void MatrixUnits::work(int number, Product& product) {
  const WarpgroupProduct& what = product.what;
  if (what.registers == nullptr) {
    product.left.resize(std::size_t(kRows * kDepth));
    read_tile(Tile(what.a, what.a_transposed), what.operand, number % kWarps * kRows, kRows, product.left.data(), 1,
              kDepth);
  }
  float right[kDepth * kMostColumns];
  read_tile(Tile(what.b, what.b_transposed), what.operand, 0, what.columns, right, what.columns, 1);
  float* const sums = product.sums->values.data();
  if (!what.adds) std::fill(product.sums->values.begin(), product.sums->values.end(), 0.0f);
  for (int row = 0; row < kRows; ++row) {
    add_products(product.left.data() + row * kDepth, right, kDepth, what.columns, sums + row * what.columns);
  }
  product.done = true;
}

void MatrixUnits::publish(Warp& warp, int group) {
  for (auto sums = warp.sums.begin(); sums != warp.sums.end();) {
    if (sums->last_group >= group) {
      ++sums;
      continue;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int n = 0; n < sums->columns / 2; ++n) {
        const SumPlace at(lane, n);
        sums->registers[lane][n] = sums->values[std::size_t(at.row * sums->columns + at.column)];
      }
    }
    sums = warp.sums.erase(sums);
  }
  if (warp.sums.empty()) warp.published = ++time_;
}

void MatrixUnits::wait(int number, int pending) {
  Warp& warp = warps_[std::size_t(number)];
  const int group = warp.group - pending;  // those before have ended
  for (; !warp.products.empty() && warp.products.front().group < group; warp.products.pop_front()) {
    Product& product = warp.products.front();
    look_at_factors(product.what);
    if (!product.done) work(number, product);
  }
  publish(warp, group);
}

void MatrixUnits::end_thread(int warp) const {
  if (!warps_[std::size_t(warp)].products.empty()) fail("ends before its products have");
}

void wgmma(const WarpgroupProduct& product) {
  WarpgroupProduct mine = product;
  together(~0u, &mine, [](void* const* lanes) {
    WarpgroupProduct all[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) all[lane] = *static_cast<const WarpgroupProduct*>(lanes[lane]);
    block->matrix_units.ask(current_warp(), all);
  });
}

void wgmma_fence() {
  together(~0u, nullptr, [](void* const*) { block->matrix_units.fence(current_warp()); });
}
void wgmma_commit_group() {
  together(~0u, nullptr, [](void* const*) { block->matrix_units.commit(current_warp()); });
}
void wgmma_wait_group(int pending) {
  together(~0u, &pending,
           [](void* const* lanes) { block->matrix_units.wait(current_warp(), *static_cast<const int*>(lanes[0])); });
}

void set_most_registers(int count, bool increase) {
  if (count % 8 != 0 || count < 24 || count > 256) fail("sets a number of registers that setmaxnreg does not take");
  int& mine = self().registers;
  if (increase ? count < mine : count > mine) fail("has setmaxnreg go the other way");
  while (increase && block->free_registers < count - mine) {
    block->waiting_for_registers.push_back(current);
    wait_for("registers");
  }
  block->free_registers -= count - mine;
  mine = count;
  wake_all(block->waiting_for_registers);
}

}  // namespace strobe::simulator
