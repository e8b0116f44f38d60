// One instruction set's probe; compiled once for each.
#include "cpu/simd/simd.hpp"
#include "probe.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

void probe_philox(std::uint32_t (*counters)[4], std::uint64_t key) {
  std::int32_t words[4][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int word = 0; word < 4; ++word) words[word][lane] = std::int32_t(counters[lane][word]);
  }
  Ints counter[4];
  for (int word = 0; word < 4; ++word) counter[word] = load_ints(words[word]);
  philox(counter, key);
  for (int word = 0; word < 4; ++word) store_ints(words[word], counter[word]);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int word = 0; word < 4; ++word) counters[lane][word] = std::uint32_t(words[word][lane]);
  }
}

void probe_transpose(float* square) {
  Floats rows[kLanes];
  for (int row = 0; row < kLanes; ++row) rows[row] = load(square + row * kLanes);
  transpose(rows);
  for (int row = 0; row < kLanes; ++row) store(square + row * kLanes, rows[row]);
}

#if STROBE_ISA_ID == 4
void probe_tiles(const std::uint16_t* a, const std::uint16_t* b, float* sum) {
  configure_tiles();
  load_tile<3>(sum, kTileEdge);
  load_tile<6>(a, kTileEdge);
  load_tile<7>(b, kTileEdge);
  multiply_add_tile<3, 6, 7>();
  store_tile<3>(sum, kTileEdge);
  release_tiles();
}

template <void (*kSplit)(Floats, Floats, Pairs (&)[3])>
void probe_split(const float* low, const float* high, std::uint16_t* to) {
  Pairs pieces[3];
  kSplit(load(low), load(high), pieces);
  for (int piece = 0; piece < 3; ++piece) {
    store_pairs(reinterpret_cast<std::uint32_t*>(to + piece * 2 * kLanes), pieces[piece]);
  }
}
#endif

const Probe kProbe = {
    .lanes = kLanes,
    .exp2 = [](const float* x, float* y) { store(y, exp2(load(x))); },
    .tanh = [](const float* x, float* y) { store(y, tanh(load(x))); },
    .tanh_slope = [](const float* x, float* y) { store(y, tanh_slope(load(x))); },
    .round = [](const float* x, float* y) { store(y, round(load(x))); },
    .fma = [](const float* a, const float* b, const float* c, float* y) { store(y, fma(load(a), load(b), load(c))); },
    .select_less = [](const float* a, const float* b,
                      float* y) { store(y, select(less(load(a), load(b)), load(a), load(b))); },
    .sum = [](const float* x) { return sum(load(x)); },
    .largest = [](const float* x) { return largest(load(x)); },
    .load_half = [](const std::uint16_t* x, float* y) { store(y, load_half(x)); },
    .store_half = [](const float* x, std::uint16_t* y) { store_half(y, load(x)); },
    .load_bfloat16 = [](const std::uint16_t* x, float* y) { store(y, load_bfloat16(x)); },
    .store_bfloat16 = [](const float* x, std::uint16_t* y) { store_bfloat16(y, load(x)); },
    .load_e4m3 = [](const std::uint8_t* x, float* y) { store(y, load(reinterpret_cast<const E4M3*>(x))); },
    .load_e5m2 = [](const std::uint8_t* x, float* y) { store(y, load(reinterpret_cast<const E5M2*>(x))); },
    .copy_first = [](const float* x, int count, float* y) { store_first(y, load_first(x, count), count); },
    .copy_first_bfloat16 =
        [](const std::uint16_t* x, int count, std::uint16_t* y) {
          store_first(reinterpret_cast<BFloat16*>(y), load_first(reinterpret_cast<const BFloat16*>(x), count), count);
        },
    .transpose = probe_transpose,
#if STROBE_ISA_ID == 4
    .exp2_coarse = [](const float* x, float* y) { store(y, exp2_coarse(load(x))); },
    .multiply_tiles = probe_tiles,
    .split_pairs = probe_split<split_pairs<3>>,
    .cut_pairs = probe_split<cut_pairs<3>>,
    .split_row = probe_split<split_row<3>>,
#else
    .exp2_coarse = nullptr,
    .multiply_tiles = nullptr,
    .split_pairs = nullptr,
    .cut_pairs = nullptr,
    .split_row = nullptr,
#endif
    .philox = probe_philox,
};

}  // namespace

const Probe& probe() { return kProbe; }

}  // namespace strobe::cpu::STROBE_ISA
