// Who runs the chunks of a call: a caller's own threads, or the library's small pool.
#pragma once

#include <cstdint>
#include <memory>

#include "strobe/types.hpp"

namespace strobe {

/// Runs independent chunks of work. Engines with a thread pool of their own implement this over it.
class STROBE_API Executor {
 public:
  /// body(context, chunk, worker): `worker` is in [0, concurrency()) and no two chunks run at the same
  /// time with the same worker index.
  using Body = void (*)(void* context, std::int64_t chunk, int worker);

  virtual ~Executor();
  /// How many chunks may run at once; at least 1.
  virtual int concurrency() const = 0;
  /// Runs body for every chunk in [0, chunks), in any order, and returns when all are done.
  /// `nanoseconds_per_chunk` is an estimate; work that is too short to share runs on the caller.
  virtual void parallel_for(std::int64_t chunks, double nanoseconds_per_chunk, Body body, void* context) = 0;
};

/// The library's pool for this process: as many threads as the affinity mask and the cgroup quota allow,
/// or STROBE_NUM_THREADS. Created on first use.
STROBE_API Executor& default_executor();

/// A pool of `threads` threads, the caller counted in (so 1 runs everything on the caller).
/// @throws Error if threads < 1.
STROBE_API std::unique_ptr<Executor> make_thread_pool(int threads);

}  // namespace strobe
