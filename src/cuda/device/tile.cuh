// Tiles of 16-bit elements in shared memory: [rows][kDims], 16-byte chunks swizzled so that ldmatrix finds eight rows of
// one chunk column in eight different bank groups; filled from global memory in the background.
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

/// Where row r of a head's queries, keys or values lies.
struct RowAddress {
  const char* data;
  i64 row_bytes;

  STROBE_DEVICE const char* operator()(int row) const { return data + row * row_bytes; }
};

/// Eight elements of a row of any alignment, zero past `count`.
STROBE_DEVICE uint4 gather_chunk(const char* from, int count) {
  const u16* elements = reinterpret_cast<const u16*>(from);
  u32 words[4];
  for (int w = 0; w < 4; ++w) {
    const u32 low = 2 * w < count ? elements[2 * w] : 0;
    const u32 high = 2 * w + 1 < count ? elements[2 * w + 1] : 0;
    words[w] = low | high << 16;
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/// Brings rows [first, first + kRows) of `address` into the tile; rows outside of [begin, end) and elements past `dims`
/// become zero, and nothing of them is read. All threads take part. Rows that may be read 16 bytes at a time come
/// in the background (cp.async: commit and wait are the caller's), others at once.
template <class T, int kThreads, class Address>
STROBE_DEVICE void load_tile(u32 tile, const Address& address, int first, int begin, int end, int dims, bool vectors) {
  constexpr int kChunks = T::kRows * T::kRowChunks;
#pragma unroll
  for (int c = 0; c < ceil_div(kChunks, kThreads); ++c) {
    const int index = c * kThreads + int(threadIdx.x);
    if (kChunks % kThreads != 0 && index >= kChunks) break;
    const int row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const int place = first + row, left = dims - chunk * kChunkElements;
    const bool inside = place >= begin && place < end && left > 0;
    const char* from = inside ? address(place) + chunk * kChunkBytes : address.data;
    const u32 to = tile + T::offset(row, chunk);
    if (vectors) {
      ptx::cp_async_16(to, from, inside ? smaller(left * 2, kChunkBytes) : 0);
    } else {
      ptx::st_shared_16(to, gather_chunk(from, inside ? left : 0));
    }
  }
}

}  // namespace strobe::cuda
