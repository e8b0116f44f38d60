// Each operation makes the right context current through a Launcher, then is one call of the driver.
#include "cuda/host/memory.hpp"

#include <utility>

#include "cuda/host/driver.hpp"

namespace strobe::cuda {
namespace {

CuPointer address(const void* memory) { return reinterpret_cast<CuPointer>(memory); }
CuEvent handle(void* event) { return static_cast<CuEvent>(event); }
constexpr unsigned kNonBlocking = 1;

}  // namespace

DeviceMemory::DeviceMemory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
  const Launcher context({.device = device});
  CuPointer memory = 0;
  if (bytes > 0) require(driver().allocate(&memory, bytes), "taking device memory");
  data_ = reinterpret_cast<void*>(memory);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  const Launcher context({.device = device_});
  driver().free(address(data_));
}

void copy_to_device(Stream stream, void* to, const void* from, std::size_t bytes) {
  const Launcher context(stream);
  require(driver().copy_to_device(address(to), from, bytes, stream.handle), "copying to the device");
  require(driver().stream_synchronise(stream.handle), "copying to the device");
}

void copy_to_host(Stream stream, void* to, const void* from, std::size_t bytes) {
  const Launcher context(stream);
  require(driver().copy_to_host(to, address(from), bytes, stream.handle), "copying from the device");
  require(driver().stream_synchronise(stream.handle), "copying from the device");
}

void fill(Stream stream, void* memory, unsigned char value, std::size_t bytes) {
  const Launcher context(stream);
  require(driver().fill_async(address(memory), value, bytes, stream.handle), "filling device memory");
}

void synchronise(Stream stream) {
  const Launcher context(stream);
  require(driver().stream_synchronise(stream.handle), "waiting for the device");
}

OwnStream::OwnStream(int device) : stream_{.device = device} {
  const Launcher context(stream_);
  require(driver().stream_create(&stream_.handle, kNonBlocking), "making a stream");
}

OwnStream::~OwnStream() {
  const Launcher context(stream_);
  driver().stream_destroy(stream_.handle);
}

Event::Event(int device) : device_(device) {
  const Launcher context({.device = device});
  CuEvent event = nullptr;
  require(driver().event_create(&event, 0), "making an event");
  event_ = event;
}

Event::~Event() {
  const Launcher context({.device = device_});
  driver().event_destroy(handle(event_));
}

void Event::record(Stream stream) {
  const Launcher context(stream);
  require(driver().event_record(handle(event_), stream.handle), "recording an event");
}

void Event::wait() const { require(driver().event_synchronise(handle(event_)), "waiting for an event"); }

double Event::milliseconds_until(const Event& later) const {
  float milliseconds = 0;
  require(driver().event_elapsed(&milliseconds, handle(event_), handle(later.event_)), "measuring time");
  return milliseconds;
}

}  // namespace strobe::cuda
