// Decode driver.
#include "cpu/cpu.hpp"

namespace strobe::cpu {
void size_decode(const Problem&, Decision&) {}
}  // namespace strobe::cpu
