// Calls that were checked before: a network's layers and a generation's steps differ in nothing but where their tensors
// lie, and only what depends on that need be checked again.
#pragma once

#include <cstdint>

#include "check/check.hpp"
#include "check/overlap.hpp"

namespace strobe::check {

/// A forward call on a device (Data::kOnDevice), and what check::forward found of it.
class CheckedForward {
 public:
  /// Takes a call that check::forward has accepted.
  void remember(const Attention& attention, const ForwardOutputs& outputs, const Checked& checked);

  /// What check::forward finds of this call too, where it is the remembered one but for addresses and dropout's seed;
  /// otherwise, and where outputs might share memory, null: check::forward must be asked. Valid until the next call.
  const Checked* recall(const Attention& attention, const ForwardOutputs& outputs);

 private:
  static constexpr int kMostTensors = 26;

  /// The options that are no tensors, without dropout's seed and offset, which nothing is decided by.
  struct Numbers {
    std::optional<float> scale;
    std::optional<std::int64_t> window_left, window_right;
    std::int64_t prefix_length = 0, block_rows = 0, block_columns = 0;
    float softcap = 0, dropout = 0;
    std::int32_t splits = 0;
    Alignment alignment{};
    RotaryStyle rotary_style{};
    bool causal = false, batch_invariant = false, deterministic = false;
    bool operator==(const Numbers&) const = default;
  };

  /// A tensor that is given, as a number of repeat.cpp's list, and the bytes it spans.
  struct Given {
    int place = 0;
    bool written = false;
    Tensor tensor;
    Extent extent;
  };

  static Numbers numbers_of(const Attention& attention);
  /// Whether the tensor is the given one but for its address. Then takes that.
  static bool moved(Given& given, const Tensor& tensor);
  bool outputs_are_apart() const;

  Numbers numbers_;
  int given_count_ = 0;
  Given given_[kMostTensors];
  Checked checked_;
};

}  // namespace strobe::check
