// Sizes of the decode kernel. The driver of the whole forward pass is cpu/forward/forward.cpp.
#include "cpu/cpu.hpp"
#include "cpu/forward/driver.hpp"

namespace strobe::cpu {

void size_decode(const Problem& problem, Decision& decision) { size_forward_workspace(problem, decision); }

}  // namespace strobe::cpu
