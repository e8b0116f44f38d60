// Streams are told apart by numbers that the driver does not use again, unlike their handles: a stream that is
// destroyed may have launches under way.
#include "cuda/host/stream_counts.hpp"

#include <map>
#include <mutex>
#include <utility>

namespace strobe::cuda {
namespace {

/// Streams of a process that have such memory, which they keep until it ends.
constexpr std::size_t kMostStreams = 4096;

using StreamName = std::pair<unsigned long long, unsigned long long>;  // numbers of context and stream

void* look_up(DeviceState& device, CuStream stream, const StreamName& name) {
  static std::mutex& mutex = *new std::mutex;
  static auto& all = *new std::map<StreamName, void*>;
  const std::lock_guard lock(mutex);
  if (const auto known = all.find(name); known != all.end()) return known->second;
  if (all.size() >= kMostStreams) return nullptr;
  CuPointer memory = 0;
  require(driver().pool_allocate(&memory, kCountBytes, device.pool(), stream), "taking memory for counts");
  return all[name] = reinterpret_cast<void*>(memory);
}

}  // namespace

void* counts_of(DeviceState& device, CuStream stream, unsigned long long context_id) {
  const Driver& cu = driver();
  if (cu.stream_capturing == nullptr || cu.stream_id == nullptr) return nullptr;
  int capturing = 0;
  StreamName name{context_id, 0};
  if (cu.stream_capturing(stream, &capturing) != kCuSuccess || capturing != 0) return nullptr;
  if (cu.stream_id(stream, &name.second) != kCuSuccess) return nullptr;
  thread_local StreamName last_name{0, 0};
  thread_local void* last = nullptr;
  if (last == nullptr || last_name != name) {
    last = look_up(device, stream, name);
    last_name = name;
  }
  return last;
}

}  // namespace strobe::cuda
