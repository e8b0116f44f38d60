// A warp's own loads: sixteen rows of keys or values at a time, in pages or not, into its own part of shared memory.
#pragma once

#include "cuda/sm80/decode/config.cuh"

namespace strobe::cuda::sm80 {

/// As key_rows, where DecodeParams::plain.
STROBE_DEVICE KeyAddress plain_key_rows(const PlainRows& view, int b, int kv_head) {
  KeyAddress rows{};
  rows.row_bytes = view.row_bytes;
  rows.data = view.data + b * view.batch_bytes + kv_head * view.head_bytes;
  return rows;
}

/// As sequence_of, where DecodeParams::plain.
STROBE_DEVICE Sequence plain_sequence(const DecodeParams& d, int b) {
  const AttentionParams& p = d.attention;
  Sequence s{};
  s.batch = b;
  s.queries = s.stored_queries = p.query_length;
  s.keys = s.cached_keys = d.key_length;
  s.shift = p.bottom_right ? s.keys - s.queries : 0;
  return s;
}

STROBE_DEVICE const char* address_of_lane(const char* mine, int lane) {
  const u64 address = reinterpret_cast<u64>(mine);
  const u32 low = __shfl_sync(~0u, u32(address), lane), high = __shfl_sync(~0u, u32(address >> 32), lane);
  return reinterpret_cast<const char*>(u64(high) << 32 | low);
}

/// Rows one after another, in the background.
template <class T>
STROBE_DEVICE void load_neighbours(u32 tile, const KeyAddress& address, RowWindow window, int dims) {
  constexpr int kAcross = smaller(T::kRowChunks & -T::kRowChunks, kWarpLanes), kDown = kWarpLanes / kAcross;
  const int row = lane_index() / kAcross, chunk = lane_index() % kAcross;
  const char* from = address.data + (window.first + row) * address.row_bytes + chunk * kChunkBytes;
#pragma unroll
  for (int r = 0; r < T::kRows; r += kDown) {
    const bool inside = window.holds(window.first + row + r);
#pragma unroll
    for (int c = 0; c < T::kRowChunks; c += kAcross) {
      ptx::cp_async_16(tile + T::offset(row + r, chunk + c), from + c * kChunkBytes,
                       inside && (chunk + c) * T::kChunkElements < dims);
    }
    from += kDown * address.row_bytes;
  }
}

/// Rows in pages, in the background: one lane looks up the address of one row and hands it to the others.
template <class T>
STROBE_DEVICE void load_scattered(u32 tile, const KeyAddress& address, RowWindow window, int dims) {
  const int lane = lane_index(), mine = window.first + lane % 16;
  const char* const row_of_lane = window.holds(mine) ? address(mine) : nullptr;
#pragma unroll
  for (int n = 0; n < T::kRows * T::kRowChunks / kWarpLanes; ++n) {
    const int index = n * kWarpLanes + lane, row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const char* const from = address_of_lane(row_of_lane, row);
    const bool wanted = from != nullptr && chunk * T::kChunkElements < dims;
    ptx::cp_async_16(tile + T::offset(row, chunk), wanted ? from + chunk * kChunkBytes : address.data, wanted);
  }
}

/// Rows that cannot be copied in chunks: float8, of which several loads should be under way, and odd strides.
template <class T>
STROBE_DEVICE void load_elements(u32 tile, const KeyAddress& address, RowWindow window, int dims) {
  constexpr int kUnrolled = T::Element::kStoredBytes == 1 ? 8 : 1;
#pragma unroll kUnrolled
  for (int index = lane_index(); index < T::kRows * T::kRowChunks; index += kWarpLanes) {
    const int row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const int left = window.holds(window.first + row) ? larger(dims - chunk * T::kChunkElements, 0) : 0;
    const char* const from = left > 0 ? address(window.first + row) + chunk * T::kStoredChunkBytes : address.data;
    ptx::st_shared_16(tile + T::offset(row, chunk), gather_chunk<typename T::Element>(from, left));
  }
}

/// Brings rows [window.first, window.first + 16) into the tile; rows outside of [begin, end) and elements past `dims`
/// become zero, and nothing of them is read. `vectors`: rows can be copied in chunks as they are.
template <class T>
STROBE_DEVICE void load_warp_tile(u32 tile, const KeyAddress& address, RowWindow window, int dims, bool vectors) {
  static_assert(T::kRows == 16);
  if (!vectors) {
    load_elements<T>(tile, address, window, dims);
  } else if (address.pages != nullptr) {
    load_scattered<T>(tile, address, window, dims);
  } else {
    load_neighbours<T>(tile, address, window, dims);
  }
}

}  // namespace strobe::cuda::sm80
