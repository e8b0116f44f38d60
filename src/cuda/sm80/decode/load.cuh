// A warp's own loads: sixteen rows of keys or values at a time, in pages or not, into its own part of shared memory.
#pragma once

#include "cuda/sm80/decode/config.cuh"

namespace strobe::cuda::sm80 {

STROBE_DEVICE const char* address_of_lane(const char* mine, int lane) {
  const u64 address = reinterpret_cast<u64>(mine);
  const u32 low = __shfl_sync(~0u, u32(address), lane), high = __shfl_sync(~0u, u32(address >> 32), lane);
  return reinterpret_cast<const char*>(u64(high) << 32 | low);
}

/// Brings rows [window.first, window.first + 16) into the tile; rows outside of [begin, end) and elements past `dims`
/// become zero, and nothing of them is read. `vectors` as for load_tile.
template <class T>
STROBE_DEVICE void load_warp_tile(u32 tile, const KeyAddress& address, RowWindow window, int dims, bool vectors) {
  static_assert(T::kRows == 16);
  const int lane = lane_index(), mine = window.first + lane % 16;
  const char* const row_of_lane = window.holds(mine) ? address(mine) : nullptr;
#pragma unroll
  for (int n = 0; n < T::kRows * T::kRowChunks / kWarpLanes; ++n) {
    const int index = n * kWarpLanes + lane, row = index / T::kRowChunks, chunk = index % T::kRowChunks;
    const char* const from = address_of_lane(row_of_lane, row);
    const bool wanted = from != nullptr && chunk * T::kChunkElements < dims;
    const u32 to = tile + T::offset(row, chunk);
    if (vectors) {
      ptx::cp_async_16(to, wanted ? from + chunk * kChunkBytes : address.data, wanted);
    } else {
      const int left = wanted ? dims - chunk * T::kChunkElements : 0;
      ptx::st_shared_16(to, gather_chunk<typename T::Element>(from + chunk * T::kStoredChunkBytes, left));
    }
  }
}

}  // namespace strobe::cuda::sm80
