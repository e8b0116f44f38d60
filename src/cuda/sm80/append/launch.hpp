// What a forward call does before attention, whatever family computes it: new keys and values go into the cache, and
// with rotary keys and queries are turned. Called by cuda/families.cpp when planning and by cuda/cuda.cpp when running.
#pragma once

#include <cstddef>

#include "base/problem.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda::sm80_append {

/// Whether there is anything to do before attention.
inline bool is_needed(const Problem& problem) { return problem.new_length > 0 || problem.rotary_dim > 0; }

KernelKey kernel_for(const Problem& problem);

/// Bytes for rotated queries, a multiple of 256; 0 without rotary.
std::size_t workspace_bytes(const Problem& problem);

/// One launch. Returns the buffers as attention wants them: with rotary, the query is then in the workspace.
Buffers prepare(const Problem& problem, const Buffers& buffers, Launcher& launcher, void* workspace);

/// Appends only: queries are not looked at.
void append(const Problem& problem, const Buffers& buffers, Launcher& launcher);

}  // namespace strobe::cuda::sm80_append
