// What plan decided and a backend carries out. Plain data; plan fills it, nothing else changes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/device.hpp"
#include "base/problem.hpp"

namespace strobe {

enum class Variant : std::int32_t {
  kPrefill,   // forward, lanes are queries
  kDecode,    // forward, few query rows a KV head, lanes are head dimensions
  kBackward,  // all gradients
};

struct Decision {
  Variant variant = Variant::kPrefill;
  Isa isa = Isa::kSse4;
  std::int64_t split_keys = 0;   // keys per split; 0: one worker sees all keys of a query
  std::int64_t max_splits = 1;   // of any sequence
  int key_block = 64;            // keys per block of the main loop
  int query_tile = 32;           // query rows per tile
  int workers = 1;               // concurrency that the workspace serves
  std::int64_t decode_rows = 0;  // a sequence with at most this many query rows a KV head runs in the decode kernel
  // Prefill lays out keys and values of so many sequences and KV heads at a time, once for all tasks; 0: each task its
  // own.
  bool packs_keys = false;
  std::int64_t packed_sequences = 0, packed_heads = 0;
  std::size_t worker_bytes = 0;  // private to each worker
  std::size_t shared_bytes = 0;  // partial results, rotated queries, ...
  std::size_t workspace_bytes() const { return workers * worker_bytes + shared_bytes; }
};

}  // namespace strobe
