// The decode kernel of one instruction set.
#include "cpu/forward/task.hpp"
#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

std::size_t scratch_bytes(std::int64_t, int, int) { return 0; }
void run(const ForwardTask&, void*) {}

constexpr DecodeUnit kUnit{.scratch_bytes = scratch_bytes, .run = run};

}  // namespace

const DecodeUnit& decode_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
