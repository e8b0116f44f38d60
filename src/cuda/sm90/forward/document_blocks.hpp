// Room for what sm90/forward/documents.cuh sums up, for those that launch it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/sm90/forward/params.hpp"
#include "cuda/sm90/forward/tiles.hpp"
#include "cuda/translate.hpp"

namespace strobe::cuda::sm90 {

/// Where the documents of all sequences' blocks lie in a workspace.
struct DocumentBlocks {
  std::int64_t query_slots, key_slots;    // of one sequence; of packed ones bounds of all
  std::int64_t query_blocks, key_blocks;  // to be summed up

  DocumentBlocks(const Problem& problem, int key_block)
      : query_slots(query_tiles_of(problem, kWarpgroupRows)),
        key_slots(key_blocks_of(problem, key_block)),
        query_blocks(problem.packed_queries ? query_slots : problem.batch * query_slots),
        key_blocks(problem.packed_keys ? key_slots : problem.batch * key_slots) {}

  static constexpr std::size_t kBytes = 2 * sizeof(int);  // of each
  std::size_t query_bytes() const { return std::size_t(query_blocks + 1) * kBytes; }
  std::size_t key_bytes() const { return std::size_t(key_blocks + 1) * kBytes; }
};

/// Launches the kernel that sums up documents; `params` learns where.
inline void sum_up_documents(const Problem& problem, const KernelKey& key, char* memory, int key_block,
                             Launcher& launcher, ForwardParams& params) {
  const DocumentBlocks blocks(problem, key_block);
  params.query_documents = reinterpret_cast<int*>(memory);
  params.key_documents = reinterpret_cast<int*>(memory + blocks.query_bytes());
  params.query_blocks = int(blocks.query_blocks);
  params.key_blocks = int(blocks.key_blocks);
  params.query_slots = int(blocks.query_slots);
  params.key_slots = int(blocks.key_slots);
  params.key_block = key_block;
  constexpr int kWarps = kDocumentThreads / 32;
  const unsigned grid = unsigned((blocks.query_blocks + blocks.key_blocks + kWarps - 1) / kWarps);
  launcher.launch(key, {.x = grid > 0 ? grid : 1}, kDocumentThreads, 0, &params);
}

}  // namespace strobe::cuda::sm90
