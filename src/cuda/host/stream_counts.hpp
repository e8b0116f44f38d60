// Memory for what the blocks of a launch count together (device/shared_count.cuh), kept with the stream: taking so
// little from a pool and giving it back would cost the host as much as half the launch.
#pragma once

#include <cstddef>

#include "cuda/host/devices.hpp"

namespace strobe::cuda {

/// What there is for a launch, aligned to as much. It holds anything.
inline constexpr std::size_t kCountBytes = 256;

/// The memory of this stream of the current context, for one launch after another, each of which begins when those
/// before it have ended (Start::kInOrder). Null where there is none: a stream that is being captured has none, since
/// the graph may run beside its launches; nor have streams beyond some thousands.
/// @throws Error if the device has no memory left.
void* counts_of(DeviceState& device, CuStream stream, unsigned long long context_id);

}  // namespace strobe::cuda
