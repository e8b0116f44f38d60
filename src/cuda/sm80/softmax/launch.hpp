// The softmax operator on CUDA: which kernel, how threads share rows, and the launch. Called by cuda/cuda.cpp.
#pragma once

#include "base/operators.hpp"
#include "cuda/launch.hpp"

namespace strobe::cuda::sm80_softmax {

/// One launch each.
void softmax(const SoftmaxProblem& problem, Launcher& launcher);
void softmax_backward(const SoftmaxProblem& problem, Launcher& launcher);

}  // namespace strobe::cuda::sm80_softmax
