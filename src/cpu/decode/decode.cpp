// Sizes of a decode plan. The forward driver runs the kernel.
#include "cpu/cpu.hpp"
#include "cpu/forward/driver.hpp"

namespace strobe::cpu {

void size_decode(const Problem& problem, Decision& decision) {
  decision.key_block = 64;
  decision.query_tile = int(problem.query_length * problem.group());
  size_forward_workspace(problem, decision);
}

}  // namespace strobe::cpu
