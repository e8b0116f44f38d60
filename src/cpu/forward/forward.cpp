// Forward driver: cuts a problem into tasks and hands them to the unit of the chosen instruction set.
#include "cpu/cpu.hpp"

namespace strobe::cpu {
void size_prefill(const Problem&, Decision&) {}
void forward(const Problem&, const Buffers&, const Decision&, Executor&, void*) {}
}  // namespace strobe::cpu
