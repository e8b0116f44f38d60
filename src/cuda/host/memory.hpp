// Memory, streams and events of one GPU, for tools and tests. The library's own calls use none of this: their callers
// bring memory and streams.
#pragma once

#include <cstddef>

#include "cuda/launch.hpp"

namespace strobe::cuda {

/// Device memory on `device`.
/// @throws Error (kOutOfMemory).
class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  int device_;
  void* data_ = nullptr;
  std::size_t bytes_;
};

/// Copies in the order of the stream, and waits until it is done.
void copy_to_device(Stream stream, void* to, const void* from, std::size_t bytes);
void copy_to_host(Stream stream, void* to, const void* from, std::size_t bytes);

/// Sets `bytes` of device memory to `value`, in the order of the stream.
void fill(Stream stream, void* memory, unsigned char value, std::size_t bytes);

/// Waits for everything on the stream.
/// @throws Error if a kernel failed.
void synchronise(Stream stream);

/// A stream of its own in the device's primary context, which nothing else waits for.
class OwnStream {
 public:
  explicit OwnStream(int device);
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  Stream get() const { return stream_; }

 private:
  Stream stream_;
};

/// A point in time on a stream.
class Event {
 public:
  explicit Event(int device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream);
  /// Waits until it is reached.
  void wait() const;
  /// From this event to a later one, both reached.
  double milliseconds_until(const Event& later) const;

 private:
  int device_;
  void* event_ = nullptr;
};

}  // namespace strobe::cuda
