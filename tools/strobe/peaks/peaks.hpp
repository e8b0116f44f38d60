// What this machine can do at most, measured: multiply-adds, bf16 dot products, products of tile registers and reading
// memory. Ratios to these say more than seconds, since a core's clock moves with heat and with its neighbours.
#pragma once

#include "base/device.hpp"

namespace strobe::tools {

enum class PeakKind { kMultiplyAdd, kDot, kTiles, kRead };

/// "FMA", "bf16 dot", "bf16 tiles", "memory read"
struct Peak {
  PeakKind kind = PeakKind::kMultiplyAdd;
  Isa isa = Isa::kSse4;
  bool operator==(const Peak&) const = default;
};
const char* name_of(PeakKind kind);

/// GFLOP/s or GB/s of `threads` threads running together, in about 25 ms.
double measure(Peak peak, int threads);

}  // namespace strobe::tools
