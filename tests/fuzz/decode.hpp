// From fuzzer bytes to a call: a valid problem first, of any form and with any options, and then a few fields set to
// hostile values. Every tensor whose footprint is small gets memory of exactly that footprint, so that the address
// sanitizer sees the first byte too many; others are null.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "strobe/attention.hpp"

namespace strobe::fuzz {

/// Hands out the fuzzer's bytes; zeros when they are used up.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  std::uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  /// In [0, bound).
  std::int64_t below(std::int64_t bound) { return byte() % bound; }
  bool flag() { return (byte() & 1) != 0; }
  /// A number that tests limits: small, near a power of two, negative, or anything.
  std::int64_t hostile();

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

enum class Entry { kForward, kBackward, kAppend, kMerge, kSoftmax, kSoftmaxBackward };

struct Call {
  Entry entry = Entry::kForward;
  Attention attention;
  ForwardOutputs outputs;
  BackwardInputs inputs;
  Gradients gradients;
  Tensor parts, part_lses;  // merge; softmax uses outputs and inputs
  int axis = -1;
  std::vector<std::unique_ptr<std::byte[]>> memory;

  /// Every tensor of the call.
  std::vector<Tensor*> tensors();
};

Call decode(Bytes& bytes);

/// Sets an option or a field of a tensor to a hostile value.
void spoil(Bytes& bytes, Call& call);

/// Whether running the call would touch little enough memory and time for a fuzzer.
bool small_enough(Call& call);

}  // namespace strobe::fuzz
