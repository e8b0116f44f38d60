// The prefill kernel of one instruction set, with bf16 dot products where the set and the inputs have them.
#include "cpu/forward/kernel.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

void run(const ForwardTask& task, void* scratch) {
#if STROBE_ISA_ID == 3
  if (task.query_type == DataType::kBFloat16 && task.key_type == DataType::kBFloat16) {
    return Prefill<PairOperand>(task, scratch).run();
  }
#endif
  Prefill<FloatOperand>(task, scratch).run();
}

constexpr ForwardUnit kUnit{.tile_rows = kTileWidth,
                            .key_block = kKeyBlock,
                            .max_tiles = max_tiles,
                            .scratch_bytes = Prefill<FloatOperand>::scratch_bytes,
                            .run = run};

}  // namespace

const ForwardUnit& forward_unit() { return kUnit; }

}  // namespace strobe::cpu::STROBE_ISA
