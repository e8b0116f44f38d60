// The backward kernel of one instruction set: what the driver (backward.cpp) calls. kernel.hpp is the schedule.
#include "cpu/backward/kernel.hpp"
#include "cpu/backward/row_facts.hpp"

#if STROBE_ISA_ID == 4
#include "cpu/backward/split_kernel.hpp"
#endif

namespace strobe::cpu::STROBE_ISA {
namespace {

template <class Operand>
void run_operand(const BackwardTask& task) {
#if STROBE_ISA_ID == 4
  if constexpr (Operand::kInTiles) configure_tiles();
#endif
  gradients<Operand>(task);
#if STROBE_ISA_ID == 4
  if constexpr (Operand::kInTiles) release_tiles();
#endif
}

void run_gradients(const BackwardTask& task) {
  // The driver gives all four the same type but dO, which the caller may have kept in float32.
  if (task.query.type == task.grad_output.type) {
#if STROBE_ISA_ID >= 3
    if (task.query.type == DataType::kBFloat16) return run_operand<PairOperand>(task);
#endif
#if STROBE_ISA_ID == 4
    if (task.query.type == DataType::kFloat32) return run_operand<SplitOperand<3>>(task);
    if (task.query.type == DataType::kFloat16) return run_operand<SplitOperand<2>>(task);
#endif
  }
  run_operand<FloatOperand>(task);
}

int query_tile_of(DataType type) {
#if STROBE_ISA_ID == 4
  if (type == DataType::kBFloat16) return kPairTileRows;
  return kSplitTileRows;
#endif
  (void)type;
  return STROBE_ISA_ID == 2 ? 96 : 64;
}

int pieces_of(DataType type) {
#if STROBE_ISA_ID == 4
  if (type == DataType::kFloat32) return SplitOperand<3>::kPieces;
  if (type == DataType::kFloat16) return SplitOperand<2>::kPieces;
#endif
  (void)type;
  return 1;
}

}  // namespace

const BackwardUnit& backward_unit() {
  static constexpr BackwardUnit unit{.lanes = kLanes,
                                     .panel = kPanel,
                                     .tile_rows = kRegisterRows,
                                     .query_tile = query_tile_of,
                                     .pieces = pieces_of,
                                     .row_facts = row_facts,
                                     .gradients = run_gradients,
                                     .round_rows = round_rows};
  return unit;
}

}  // namespace strobe::cpu::STROBE_ISA
