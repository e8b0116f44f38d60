// Tiles of 16-bit elements in shared memory: [rows][kDims], 16-byte chunks swizzled so that ldmatrix finds eight rows
// of one chunk column in eight different bank groups; filled from global memory in the background.
#pragma once

#include "cuda/device/element.cuh"

namespace strobe::cuda {

constexpr int kChunkBytes = 16, kChunkElements = 8;

template <int kRows_, int kDims_>
struct Tile {
  static constexpr int kRows = kRows_, kDims = kDims_;
  static constexpr int kRowBytes = kDims * 2, kRowChunks = kDims / kChunkElements;
  static constexpr int kBytes = kRows * kRowBytes;
  static_assert(kDims % 32 == 0, "the swizzle needs rows of at least four chunks");

  /// Byte offset of a chunk of a row. Rows of a multiple of 128 bytes start in the same bank, so that all eight chunk
  /// places take part; in other rows, neighbours are half a turn of the banks apart and four places are enough.
  static STROBE_DEVICE int offset(int row, int chunk) {
    const int turned = kRowChunks % 8 == 0 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return row * kRowBytes + turned * kChunkBytes;
  }
};

/// Where row r of a head's queries or outputs lies: rows at equal distances.
struct RowAddress {
  const char* data;
  i64 row_bytes;

  STROBE_DEVICE const char* operator()(int row) const { return data + row * row_bytes; }
};

/// Eight elements of a row of any alignment, zero past `count`.
STROBE_DEVICE uint4 gather_chunk(const char* from, int count) {
  const u16* elements = reinterpret_cast<const u16*>(from);
  u32 words[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const u32 low = 2 * w < count ? elements[2 * w] : 0;
    const u32 high = 2 * w + 1 < count ? elements[2 * w + 1] : 0;
    words[w] = low | high << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// Rows [first, first + kRows) of a tensor, of which only [begin, end) may be read.
struct RowWindow {
  int first, begin, end;

  STROBE_DEVICE bool holds(int row) const { return u32(row - begin) < u32(end - begin); }
};

/// How a block's threads share a tile: neighbours read neighbouring chunks of a row, and a thread's rows are a multiple
/// of eight apart, so that its places in the tile differ by constants.
template <class T, int kThreads>
struct Shares {
  static constexpr int kAcross = T::kRowChunks & -T::kRowChunks;  // threads to a row
  static constexpr int kSteps = T::kRowChunks / kAcross, kDown = kThreads / kAcross;
  static_assert(kDown % 8 == 0 && T::kRows % kDown == 0, "every thread has whole rows of the same phase");
};

/// Brings the window's rows into the tile in the background (cp.async: commit and wait are the caller's); rows outside
/// of it and elements past `dims` become zero, and nothing of them is read. All threads take part. Every row must
/// be a multiple of 16 bytes long and start at one.
template <class T, int kThreads>
STROBE_DEVICE void load_tile(u32 tile, const RowAddress& address, RowWindow window, int dims) {
  using S = Shares<T, kThreads>;
  const int chunk = int(threadIdx.x) % S::kAcross, row = int(threadIdx.x) / S::kAcross;
  const char* from = address(window.first + row) + chunk * kChunkBytes;
  const u32 to = tile + T::offset(row, chunk);
  const i64 down = S::kDown * address.row_bytes;
#pragma unroll
  for (int r = 0; r < T::kRows; r += S::kDown) {
    const bool inside = window.holds(window.first + row + r);
#pragma unroll
    for (int n = 0; n < S::kSteps; ++n) {
      ptx::cp_async_16(to + r * T::kRowBytes + n * S::kAcross * kChunkBytes, from + n * S::kAcross * kChunkBytes,
                       inside && (chunk + n * S::kAcross) * kChunkElements < dims);
    }
    from += down;
  }
}

/// The same for rows whose places are looked up one by one, or that are no multiples of 16 bytes: the latter are
/// there when all threads have returned.
template <class T, int kThreads, class Address>
STROBE_DEVICE void load_scattered_tile(u32 tile, const Address& address, RowWindow window, int dims, bool vectors) {
#pragma unroll 1
  for (int index = int(threadIdx.x); index < T::kRows * T::kRowChunks; index += kThreads) {
    const int row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const int left = window.holds(window.first + row) ? larger(dims - chunk * kChunkElements, 0) : 0;
    const char* const from = left > 0 ? address(window.first + row) + chunk * kChunkBytes : address.data;
    if (vectors) {
      ptx::cp_async_16(tile + T::offset(row, chunk), from, left > 0);
    } else {
      ptx::st_shared_16(tile + T::offset(row, chunk), gather_chunk(from, left));
    }
  }
}

}  // namespace strobe::cuda
