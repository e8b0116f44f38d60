// The prefill kernel of one instruction set.
#include "cpu/forward/task.hpp"
#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

std::size_t scratch_bytes(int, int) { return 0; }
void run(const ForwardTask&, void*) {}

constexpr ForwardUnit kUnit{
    .tile_rows = kTileVectors * kLanes, .max_tiles = 4, .key_block = 64, .scratch_bytes = scratch_bytes, .run = run};

}  // namespace

const ForwardUnit& forward_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
