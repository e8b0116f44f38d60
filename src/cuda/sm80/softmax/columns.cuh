// Rows that lie side by side: neighbouring threads take neighbouring rows and walk along them together, several threads
// to a row. Any types and strides; rows are read twice.
#pragma once

#include "cuda/sm80/softmax/online.cuh"

namespace strobe::cuda::sm80 {

/// What a thread works on: elements thread, thread + kColumnThreads, ... of a row.
struct ColumnWork {
  i64 row, length;  // length 0 for threads without a row
  int thread;
};

STROBE_DEVICE ColumnWork column_work(const SoftmaxParams& p) {
  const i64 outer = quotient(blockIdx.x, p.tiles);
  const i64 column = (i64(blockIdx.x) - outer * p.tiles) * kColumns + int(threadIdx.x) % kColumns;
  const bool there = column < p.shape[3];
  return {outer * p.shape[3] + (there ? column : 0), there ? p.length : 0, int(threadIdx.x) / kColumns};
}

/// The sum over the threads of a row.
template <class T>
STROBE_DEVICE void combine_columns(T& mine) {
  __shared__ char memory[kColumnThreads * kColumns * sizeof(T)] __attribute__((aligned(8)));
  T* const all = reinterpret_cast<T*>(memory);
  all[threadIdx.x] = mine;
  __syncthreads();
  mine = all[threadIdx.x % kColumns];
  for (int n = 1; n < kColumnThreads; ++n) add(mine, all[n * kColumns + threadIdx.x % kColumns]);
}

/// Elements under way at a time.
constexpr int kColumnAhead = 4;

STROBE_DEVICE void softmax_columns(const SoftmaxParams& p) {
  const ColumnWork work = column_work(p);
  const char* const from = row_address(p, p.input, work.row);
  char* const to = row_address(p, p.output, work.row);
  Online online;
  for (i64 j = work.thread; j < work.length; j += kColumnAhead * kColumnThreads) {
    float x[kColumnAhead], largest = online.largest;
#pragma unroll
    for (int n = 0; n < kColumnAhead; ++n) {
      const i64 at = j + n * kColumnThreads;
      x[n] = at < work.length ? load_float(from, p.input.type, at * p.input.stride) : minus_infinity();
      largest = fmaxf(largest, x[n]);
    }
    online.raise(largest);
#pragma unroll
    for (int n = 0; n < kColumnAhead; ++n) online.sum += online.weight(x[n]);
  }
  combine_columns(online);
  const float factor = online.factor();
#pragma unroll 2
  for (i64 j = work.thread; j < work.length; j += kColumnThreads) {
    const float x = load_float(from, p.input.type, j * p.input.stride);
    store_float(to, p.output.type, j * p.output.stride, online.weight(x) * factor);
  }
}

STROBE_DEVICE void softmax_backward_columns(const SoftmaxParams& p) {
  const ColumnWork work = column_work(p);
  const char* const from = row_address(p, p.input, work.row);
  const char* const upstream = row_address(p, p.grad_output, work.row);
  char* const to = row_address(p, p.output, work.row);
  const auto y = [&](i64 j) { return load_float(from, p.input.type, j * p.input.stride); };
  const auto g = [&](i64 j) { return load_float(upstream, p.grad_output.type, j * p.grad_output.stride); };
  float dot = 0.0f;
#pragma unroll 2
  for (i64 j = work.thread; j < work.length; j += kColumnThreads) dot = fmaf(y(j), g(j), dot);
  combine_columns(dot);
#pragma unroll 1
  for (i64 j = work.thread; j < work.length; j += kColumnThreads) {
    store_float(to, p.output.type, j * p.output.stride, y(j) * (g(j) - dot));
  }
}

}  // namespace strobe::cuda::sm80
