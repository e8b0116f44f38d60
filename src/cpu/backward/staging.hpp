// Rows between tensors of any type and stride and the float32 buffers of the backward kernel: staging, transposing into
// panels, adding results back.
#pragma once

#include "cpu/backward/product.hpp"
#include "cpu/backward/task.hpp"

namespace strobe::cpu::STROBE_ISA {
namespace {

STROBE_INLINE int vectors_of(int dim) { return (dim + kLanes - 1) / kLanes; }

template <typename T>
STROBE_INLINE void stage_typed(const T* from, std::int64_t from_stride, int dim, int rows, float* to, int to_stride) {
  const int whole = dim / kLanes * kLanes;
  for (int row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
    for (int d = 0; d < whole; d += kLanes) store(to + d, load(from + d));
    if (whole < dim) store(to + whole, load_first(from + whole, dim - whole));
  }
}

STROBE_INLINE void clear_rows(float* rows, int count, int dim, int stride) {
  for (int row = 0; row < count; ++row) {
    for (int v = 0; v < vectors_of(dim); ++v) store(rows + row * stride + v * kLanes, zero());
  }
}

/// rows [first, first + count) of a head as float32, then zero rows up to `padded`; zero past dim up to whole vectors.
void stage_rows(const TaskRows& rows, std::int64_t head, std::int64_t first, int count, int padded, int dim, float* to,
                int to_stride) {
  const std::int64_t offset = head * rows.head_stride + first * rows.row_stride;
  switch (rows.type) {
    case DataType::kFloat32:
      stage_typed(reinterpret_cast<const float*>(rows.data) + offset, rows.row_stride, dim, count, to, to_stride);
      break;
    case DataType::kFloat16:
      stage_typed(reinterpret_cast<const Half*>(rows.data) + offset, rows.row_stride, dim, count, to, to_stride);
      break;
    default:
      stage_typed(reinterpret_cast<const BFloat16*>(rows.data) + offset, rows.row_stride, dim, count, to, to_stride);
      break;
  }
  clear_rows(to + count * to_stride, padded - count, dim, to_stride);
}

/// rows [keys, dim] -> panels [keys / kPanel, dim, kPanel]; keys is a multiple of kPanel.
void transpose_to_panels(const float* rows, int row_stride, int keys, int dim, float* panels) {
  const int padded_dim = vectors_of(dim) * kLanes;
  for (int key = 0; key < keys; key += kLanes) {
    float* panel = panels + key / kPanel * (padded_dim * kPanel) + key % kPanel;
    for (int d = 0; d < padded_dim; d += kLanes) {
      Floats block[kLanes];
      for (int r = 0; r < kLanes; ++r) block[r] = load(rows + (key + r) * row_stride + d);
      transpose(block);
      for (int r = 0; r < kLanes; ++r) store(panel + (d + r) * kPanel, block[r]);
    }
  }
}

/// Adds a buffer's rows to float32 rows [first, first + count) of a head.
void add_rows(const float* from, int from_stride, int count, int dim, const TaskRows& rows, std::int64_t head,
              std::int64_t first) {
  float* to = reinterpret_cast<float*>(rows.data) + head * rows.head_stride + first * rows.row_stride;
  const int whole = dim / kLanes * kLanes;
  for (int row = 0; row < count; ++row, from += from_stride, to += rows.row_stride) {
    for (int d = 0; d < whole; d += kLanes) store(to + d, add(load(to + d), load(from + d)));
    if (whole < dim) {
      const int rest = dim - whole;
      store_first(to + whole, add(load_first(to + whole, rest), load(from + whole)), rest);
    }
  }
}

/// Rows to be brought into the cache while products run, a few at a time: a core waits for no more than a dozen lines
/// at once, so that asked for in one go they would take as long as if they were read. In [batch, length, heads, dim]
/// each row lies in a page of its own, where no hardware prefetcher follows. All pages are looked up at once, when the
/// rows are added: between products each would hold these up.
class RowsAhead {
 public:
  /// Rows [first, last) of a head.
  void add(const TaskRows& rows, std::int64_t head, std::int64_t first, std::int64_t last, int dim) {
    if (!rows.data || first >= last) return;
    const int bytes = rows.type == DataType::kFloat32 ? 4 : 2;
    const std::int64_t stride = rows.row_stride * bytes;
    const char* const from = rows.data + (head * rows.head_stride + first * rows.row_stride) * bytes;
    for (std::int64_t row = 0; row < last - first; ++row) {
      static_cast<void>(*static_cast<const volatile char*>(from + row * stride));
    }
    pieces_[pieces_added_++] = {from, stride, last - first, dim * bytes};
    rows_ += last - first;
  }
  std::int64_t rows() const { return rows_; }
  void ask(std::int64_t rows) {
    for (; rows > 0 && rows_ > 0; --rows, --rows_) {
      Piece& piece = pieces_[pieces_added_ - 1];
      for (int at = 0; at < piece.bytes; at += 64) __builtin_prefetch(piece.next + at, 0, 2);
      piece.next += piece.stride;
      if (--piece.rows == 0) --pieces_added_;
    }
  }

 private:
  struct Piece {
    const char* next;
    std::int64_t stride, rows;
    int bytes;
  };
  Piece pieces_[7];
  int pieces_added_ = 0;
  std::int64_t rows_ = 0;
};

template <typename T>
STROBE_INLINE void round_typed(const RoundRowsTask& task) {
  const float* from = reinterpret_cast<const float*>(task.from.data);
  T* to = reinterpret_cast<T*>(task.to.data);
  const int whole = task.dim / kLanes * kLanes;
  for (std::int64_t row = 0; row < task.rows; ++row, from += task.from.row_stride, to += task.to.row_stride) {
    for (int d = 0; d < whole; d += kLanes) store(to + d, load(from + d));
    if (whole < task.dim) store_first(to + whole, load_first(from + whole, task.dim - whole), task.dim - whole);
  }
}

void round_rows(const RoundRowsTask& task) {
  if (task.to.type == DataType::kFloat16) {
    round_typed<Half>(task);
  } else {
    round_typed<BFloat16>(task);
  }
}

}  // namespace
}  // namespace strobe::cpu::STROBE_ISA
