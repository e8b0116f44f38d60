// Keeps the threads of a measurement on processors of their own. Schedulers that save power or pack virtual machines
// leave two busy threads on one processor for seconds, which would halve what a benchmark sees.
#pragma once

#include "strobe/executor.hpp"

namespace strobe::tools {

/// Moves the calling thread to the index-th processor (modulo their number) that the process was allowed at first.
void pin_this_thread(int index);

/// Pins the caller and every worker of `executor` by worker index.
void pin_threads(Executor& executor);

}  // namespace strobe::tools
