// What the backward kernel needs to know about each query row before it starts: LSE, delta = dot(dO, O) -
// dLSE, and from them the gradient of the head's sink.
#pragma once

#include "cpu/backward/task.hpp"
#include "cpu/simd/simd.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

template <typename A, typename B>
STROBE_INLINE float dot_rows(const A* a, const B* b, int dim) {
  const int whole = dim / kLanes * kLanes;
  Floats total = zero();
  for (int d = 0; d < whole; d += kLanes) total = fma(load(a + d), load(b + d), total);
  if (whole < dim) total = fma(load_first(a + whole, dim - whole), load_first(b + whole, dim - whole), total);
  return sum(total);
}

template <typename A, typename B>
STROBE_INLINE void row_facts_typed(const RowFactsTask& task) {
  const A* output = reinterpret_cast<const A*>(task.output.data);
  const B* grad_output = reinterpret_cast<const B*>(task.grad_output.data);
  const float infinity = __builtin_huge_valf();
  double grad_sink = 0.0;
  for (std::int64_t i = 0; i < task.queries; ++i) {
    const float lse = task.lse[i * task.lse_stride];
    if (lse == -infinity) {
      task.lse_out[i] = infinity;
      task.delta_out[i] = 0.0f;
      continue;
    }
    float delta =
        dot_rows(output + i * task.output.row_stride, grad_output + i * task.grad_output.row_stride, task.value_dim);
    if (task.grad_lse) delta -= task.grad_lse[i * task.grad_lse_stride];
    task.lse_out[i] = lse;
    task.delta_out[i] = delta;
    if (task.grad_sink) {
      float lanes[kLanes];
      store(lanes, exp2(broadcast((*task.sink - lse) * kLog2E)));
      grad_sink -= double(lanes[0]) * delta;
    }
  }
  if (task.grad_sink) *task.grad_sink = float(grad_sink);
}

template <typename A>
STROBE_INLINE void row_facts_of_output(const RowFactsTask& task) {
  switch (task.grad_output.type) {
    case DataType::kFloat32:
      return row_facts_typed<A, float>(task);
    case DataType::kFloat16:
      return row_facts_typed<A, Half>(task);
    default:
      return row_facts_typed<A, BFloat16>(task);
  }
}

void row_facts(const RowFactsTask& task) {
  switch (task.output.type) {
    case DataType::kFloat32:
      return row_facts_of_output<float>(task);
    case DataType::kFloat16:
      return row_facts_of_output<Half>(task);
    default:
      return row_facts_of_output<BFloat16>(task);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
