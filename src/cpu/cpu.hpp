// The CPU backend's front: what plan asks (what a kernel needs) and what api calls (run it). Arguments are checked
// before they come here, and the decision is plan's.
#pragma once

#include "base/decision.hpp"
#include "base/device.hpp"
#include "base/operators.hpp"
#include "base/problem.hpp"

namespace strobe::cpu {

/// The machine this runs on, STROBE_CPU (sse4, avx2, avx512, avx512_bf16, amx_bf16) taken into account. Looked up once.
/// @throws Error if STROBE_CPU names something unknown or something that this machine lacks.
const CpuDevice& this_machine();

/// Fills key_block, query_tile, worker_bytes and shared_bytes for decision.variant, .isa, .split_keys and .workers.
/// Each kernel family defines its own.
void size_prefill(const Problem& problem, Decision& decision);
void size_decode(const Problem& problem, Decision& decision);
void size_backward(const Problem& problem, Decision& decision);

/// Runs what was decided. `workspace` has decision.workspace_bytes(), 64-byte aligned; nothing else is allocated.
void forward(const Problem& problem, const Buffers& buffers, const Decision& decision, Executor& executor,
             void* workspace);
void backward(const Problem& problem, const Buffers& buffers, const Decision& decision, Executor& executor,
              void* workspace);
/// Writes new_key and new_value (rotated where rotary is given) into the cache.
void append(const Problem& problem, const Buffers& buffers, Executor& executor);

void merge(const MergeProblem& problem, Executor& executor);
void softmax(const SoftmaxProblem& problem, Executor& executor);
void softmax_backward(const SoftmaxProblem& problem, Executor& executor);

}  // namespace strobe::cpu
