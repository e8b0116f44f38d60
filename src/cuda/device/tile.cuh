// Tiles in shared memory: [rows][kDims] elements, 16-byte chunks swizzled so that ldmatrix finds eight rows of one
// chunk column in eight different bank groups; filled from global memory in the background.
#pragma once

#include "cuda/device/element.cuh"

namespace strobe::cuda {

constexpr int kChunkBytes = 16;

template <class Element_, int kRows_, int kDims_>
struct Tile {
  using Element = Element_;
  static constexpr int kRows = kRows_, kDims = kDims_;
  static constexpr int kChunkElements = kChunkBytes / Element::kBytes;
  static constexpr int kRowBytes = kDims * Element::kBytes, kRowChunks = kDims / kChunkElements;
  static constexpr int kStoredChunkBytes = kChunkElements * Element::kStoredBytes;  // in global memory
  static constexpr int kBytes = kRows * kRowBytes;
  static_assert(kRowChunks % 4 == 0, "the swizzle needs rows of at least four chunks");
  static constexpr int kTurn = kRowChunks % 8 == 0 ? 8 : 4;  // neighbouring chunks that change places

  /// Byte offset of a chunk of a row. Rows of a multiple of 128 bytes start in the same bank, so that all eight chunk
  /// places take part; in other rows, neighbours are half a turn of the banks apart and four places are enough.
  static STROBE_DEVICE int offset(int row, int chunk) {
    const int turned = kRowChunks % 8 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return row * kRowBytes + turned * kChunkBytes;
  }
};

/// The chunks that a lane reads in the course of a product: chunk 0 or 1 of a row, and those an even number of chunks
/// and a multiple of eight rows further on. The swizzle does not depend on such rows, and turns such chunks by an
/// exclusive or with a constant, so that an address costs an instruction at most.
template <class T>
struct LaneChunks {
  u32 first;

  STROBE_DEVICE LaneChunks(u32 tile, int row, int chunk) : first(tile + T::offset(row, chunk)) {}

  STROBE_DEVICE u32 at(int rows, int chunks) const {
    return (first ^ u32(chunks % T::kTurn * kChunkBytes)) + rows * T::kRowBytes +
           chunks / T::kTurn * T::kTurn * kChunkBytes;
  }
};

/// Where row r of a head's queries or outputs lies: rows at equal distances.
struct RowAddress {
  const char* data;
  i64 row_bytes;

  STROBE_DEVICE const char* operator()(int row) const { return data + row * row_bytes; }
};

/// A chunk of a row of any alignment, zero past `count` elements.
template <class Element>
STROBE_DEVICE uint4 gather_chunk(const char* from, int count) {
  u32 words[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (Element::kBytes == 2) {
      words[w] = load_pair<Element>(from + 2 * w * Element::kStoredBytes, count - 2 * w);
    } else {
      words[w] = w < count ? reinterpret_cast<const u32*>(from)[w] : 0;
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// Rows [first, first + kRows) of a tensor, of which only [begin, end) may be read.
struct RowWindow {
  int first, begin, end;

  STROBE_DEVICE bool holds(int row) const { return u32(row - begin) < u32(end - begin); }
  STROBE_DEVICE bool holds_all(int rows) const { return first >= begin && first + rows <= end; }
};

/// The same where all may be read.
struct AllRows {
  int first;

  STROBE_DEVICE bool holds(int) const { return true; }
};

/// How a block's threads share a tile: neighbours read neighbouring chunks of a row, and a thread's rows are a multiple
/// of eight apart, so that its places in the tile differ by constants.
template <class T, int kThreads>
struct Shares {
  static constexpr int kAcross = smaller(T::kRowChunks & -T::kRowChunks, kThreads / 8);  // threads to a row
  static constexpr int kSteps = T::kRowChunks / kAcross, kDown = kThreads / kAcross;
  // Whether every thread has as many rows, all in the same phase of the swizzle, and whole turns of it between chunks.
  static constexpr bool kEven =
      kDown % 8 == 0 && T::kRows % kDown == 0 && kAcross % (T::kRowChunks % 8 == 0 ? 8 : 4) == 0;
};

/// Brings the window's rows into the tile in the background (cp.async: commit and wait are the caller's); rows outside
/// of it and elements past `dims` become zero, and nothing of them is read. All threads take part. Every row must
/// be a multiple of 16 bytes long and start at one.
template <class T, int kThreads, class Window>
STROBE_DEVICE void load_tile(u32 tile, const RowAddress& address, Window window, int dims) {
  using S = Shares<T, kThreads>;
  static_assert(S::kEven);
  const int chunk = int(threadIdx.x % S::kAcross), row = int(threadIdx.x / S::kAcross);
  const char* from = address(window.first + row) + chunk * kChunkBytes;
  const u32 to = tile + T::offset(row, chunk);
  const i64 down = S::kDown * address.row_bytes;
#pragma unroll
  for (int r = 0; r < T::kRows; r += S::kDown) {
    const bool inside = window.holds(window.first + row + r);
#pragma unroll
    for (int n = 0; n < S::kSteps; ++n) {
      ptx::cp_async_16(to + r * T::kRowBytes + n * S::kAcross * kChunkBytes, from + n * S::kAcross * kChunkBytes,
                       inside && (chunk + n * S::kAcross) * T::kChunkElements < dims);
    }
    from += down;
  }
}

/// The same, faster for windows that hold the whole tile.
template <class T, int kThreads>
STROBE_DEVICE void load_near_tile(u32 tile, const RowAddress& address, RowWindow window, int dims) {
  if (dims == T::kDims && window.holds_all(T::kRows)) {
    load_tile<T, kThreads>(tile, address, AllRows{window.first}, T::kDims);
  } else {
    load_tile<T, kThreads>(tile, address, window, dims);
  }
}

/// load_tile by one warp alone, for tiles whose rows are at most 32 chunks.
template <class T>
STROBE_DEVICE void load_warp_rows(u32 tile, const RowAddress& address, RowWindow window, int dims) {
  constexpr int kAcross = T::kRowChunks, kDown = 32 / kAcross;
  static_assert(kDown >= 1 && T::kRows % kDown == 0);
  const int lane = int(threadIdx.x % 32), chunk = lane % kAcross, row = lane / kAcross;
  const char* from = address(window.first + row) + chunk * kChunkBytes;
  const i64 down = kDown * address.row_bytes;
#pragma unroll
  for (int r = 0; r < T::kRows; r += kDown) {
    const bool inside = window.holds(window.first + row + r) && chunk * T::kChunkElements < dims;
    ptx::cp_async_16(tile + T::offset(row + r, chunk), from, inside);
    from += down;
  }
}

/// The way back: the window's rows to memory, 16 bytes at a time.
template <class T, int kThreads>
STROBE_DEVICE void store_tile(u32 tile, const RowAddress& address, RowWindow window, int dims) {
  using S = Shares<T, kThreads>;
  static_assert(S::kEven);
  const int chunk = int(threadIdx.x % S::kAcross), row = int(threadIdx.x / S::kAcross);
  char* to = const_cast<char*>(address(window.first + row)) + chunk * kChunkBytes;
  const u32 from = tile + T::offset(row, chunk);
  const i64 down = S::kDown * address.row_bytes;
#pragma unroll
  for (int r = 0; r < T::kRows; r += S::kDown) {
    const bool inside = window.holds(window.first + row + r);
#pragma unroll
    for (int n = 0; n < S::kSteps; ++n) {
      const uint4 words = ptx::ld_shared_16(from + r * T::kRowBytes + n * S::kAcross * kChunkBytes);
      if (inside && (chunk + n * S::kAcross) * T::kChunkElements < dims) {
        *reinterpret_cast<uint4*>(to + n * S::kAcross * kChunkBytes) = words;
      }
    }
    to += down;
  }
}

/// load_tile for rows whose places are looked up one by one, or that are no multiples of 16 bytes: the latter are there
/// when all threads have returned.
template <class T, int kThreads, class Address>
STROBE_DEVICE void load_scattered_tile(u32 tile, const Address& address, RowWindow window, int dims, bool vectors) {
#pragma unroll 1
  for (int index = int(threadIdx.x); index < T::kRows * T::kRowChunks; index += kThreads) {
    const int row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const int left = window.holds(window.first + row) ? larger(dims - chunk * T::kChunkElements, 0) : 0;
    const char* const from = left > 0 ? address(window.first + row) + chunk * T::kStoredChunkBytes : address.data;
    if (vectors) {
      ptx::cp_async_16(tile + T::offset(row, chunk), from, left > 0);
    } else {
      ptx::st_shared_16(tile + T::offset(row, chunk), gather_chunk<typename T::Element>(from, left));
    }
  }
}

/// The same for rows of float32 and a tile of a 16-bit type, to which they are rounded. There when all threads have
/// returned.
template <class T, int kThreads>
STROBE_DEVICE void load_rounded_tile(u32 tile, const RowAddress& address, RowWindow window, int dims) {
#pragma unroll 1
  for (int index = int(threadIdx.x); index < T::kRows * T::kRowChunks; index += kThreads) {
    const int row = index / T::kRowChunks, chunk = index % T::kRowChunks, first = chunk * T::kChunkElements;
    const int left = window.holds(window.first + row) ? dims - first : 0;
    const float* const from = reinterpret_cast<const float*>(address(window.first + row)) + first;
    u32 words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      words[w] = T::Element::pack(2 * w < left ? from[2 * w] : 0.0f, 2 * w + 1 < left ? from[2 * w + 1] : 0.0f);
    }
    ptx::st_shared_16(tile + T::offset(row, chunk), make_uint4(words[0], words[1], words[2], words[3]));
  }
}

/// Of a tile of float32: the element in row `row` + 2 (lane % 4) + `second` and column 8 `column` + lane / 4, where
/// `row` is a multiple of eight.
template <class T>
STROBE_DEVICE u32 load_transposed(u32 tile, int lane, int row, int second, int column) {
  const int in_step = 2 * (lane % 4) + second, in_chunk = lane / 4 % 4 * 4;
  if constexpr (T::kRowChunks % 8 == 0) {
    // As T::offset has it, written so that what depends on the lane is the same for all columns.
    const int phase = lane / 16 ^ in_step, chunk = 2 * column / 8 * 8 + (phase ^ 2 * column % 8);
    return ptx::ld_shared_4(tile + (row + in_step) * T::kRowBytes + chunk * kChunkBytes + in_chunk);
  } else {
    return ptx::ld_shared_4(tile + T::offset(row + in_step, 2 * column + lane / 16) + in_chunk);
  }
}

/// The right factors of a step for columns [8 column, 8 column + 16) of a tile, from its rows [row, row + kStep): two
/// words for the first eight columns, two for the others. `row` is a multiple of eight.
template <class T>
STROBE_DEVICE void load_right_rows(u32 tile, int lane, int row, int column, u32 (&b)[4]) {
  if constexpr (T::Element::kBytes == 2) {
    ptx::ldmatrix_x4_trans(tile + T::offset(row + lane % 16, column + lane / 16), b);
  } else {
#pragma unroll
    for (int n = 0; n < 4; ++n) b[n] = load_transposed<T>(tile, lane, row, n % 2, column + n / 2);
  }
}

/// The left factor of a step for columns [8 column, 8 column + 16) of a tile, which become rows, from its rows
/// [row, row + kStep).
template <class T>
STROBE_DEVICE void load_left_columns(u32 tile, int lane, int row, int column, u32 (&a)[4]) {
  if constexpr (T::Element::kBytes == 2) {
    ptx::ldmatrix_x4_trans(tile + T::offset(row + lane % 8 + lane / 16 * 8, column + lane / 8 % 2), a);
  } else {
#pragma unroll
    for (int n = 0; n < 4; ++n) a[n] = load_transposed<T>(tile, lane, row, n / 2, column + n % 2);
  }
}

}  // namespace strobe::cuda
