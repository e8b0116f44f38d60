// Runs a case on an instruction set, past the public entry points: check, plan for that set, kernel.
#pragma once

#include "base/decision.hpp"
#include "cases/instance.hpp"
#include "plan/plan.hpp"

namespace strobe::cases {

/// The instruction sets that this machine may use, lowest first.
std::vector<Isa> instruction_sets();

/// What plan decides for the instance when `isa` is the best set there is.
plan::Choice choose(const Instance& instance, Isa isa, const Executor& executor);

/// Runs the instance; results are in its tensors. The workspace holds poison before the call and guards around it.
/// Returns what went wrong around the kernel ("wrote past its workspace"), or an empty string.
std::string run(Instance& instance, const Decision& decision, Executor& executor);

}  // namespace strobe::cases
