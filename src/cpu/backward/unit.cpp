// The backward kernel of one instruction set: what the driver (backward.cpp) calls. kernel.hpp is the schedule.
#include "cpu/backward/kernel.hpp"
#include "cpu/backward/row_facts.hpp"

namespace strobe::cpu::STROBE_ISA {

const BackwardUnit& backward_unit() {
  static constexpr BackwardUnit unit{.lanes = kLanes,
                                     .panel = kPanel,
                                     .tile_rows = kTileRows,
                                     .row_facts = row_facts,
                                     .gradients = gradients,
                                     .round_rows = round_rows};
  return unit;
}

}  // namespace strobe::cpu::STROBE_ISA
