// The backward kernel of one instruction set: what the driver (backward.cpp) calls. kernel.hpp is the schedule.
#include "cpu/backward/kernel.hpp"
#include "cpu/backward/row_facts.hpp"

#if STROBE_ISA_ID == 4
#include "cpu/backward/tile_kernel.hpp"
#endif

namespace strobe::cpu::STROBE_ISA {
namespace {

void run_gradients(const BackwardTask& task) {
#if STROBE_ISA_ID >= 3
  // The driver gives all four the same type but dO, which the caller may have kept in float32.
  if (task.query.type == DataType::kBFloat16 && task.grad_output.type == DataType::kBFloat16) {
#if STROBE_ISA_ID == 4
    configure_tiles();
    gradients<PairOperand>(task);
    return release_tiles();
#else
    return gradients<PairOperand>(task);
#endif
  }
#endif
  gradients<FloatOperand>(task);
}

}  // namespace

const BackwardUnit& backward_unit() {
  static constexpr BackwardUnit unit{.lanes = kLanes,
                                     .panel = kPanel,
                                     .tile_rows = kRegisterRows,
                                     .query_tile = STROBE_ISA_ID == 4   ? 128
                                                   : STROBE_ISA_ID == 2 ? 96
                                                                        : 64,
                                     .row_facts = row_facts,
                                     .gradients = run_gradients,
                                     .round_rows = round_rows};
  return unit;
}

}  // namespace strobe::cpu::STROBE_ISA
