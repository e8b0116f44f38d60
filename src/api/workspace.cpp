// Memory for one call. Small workspaces come from a block that each thread keeps: a fresh one would cost page faults
// on every call, which a short call would notice.
#include "api/workspace.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

namespace strobe::api {
namespace {

constexpr std::size_t kAlignment = 64;
/// Enough for the packed keys of a round (cpu/forward/packing.hpp) and the scratch of some threads.
constexpr std::size_t kLargestKept = std::size_t(32) << 20;

struct Free {
  void operator()(void* block) const { std::free(block); }
};

struct Kept {
  std::unique_ptr<void, Free> block;
  std::size_t bytes = 0;
  bool in_use = false;  // a callback of an Executor may call the library again on the same thread
};

thread_local Kept kept;

/// From this size on a workspace asks for huge pages, by whose size it is then aligned.
constexpr std::size_t kHugePage = std::size_t(2) << 20;

void* allocate(std::size_t bytes) {
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* block = std::aligned_alloc(alignment, rounded);
  if (block == nullptr) {
    throw Error(ErrorCode::kOutOfMemory, "workspace", std::to_string(bytes) + " bytes that could not be allocated",
                "available memory, or given by the caller");
  }
  if (alignment == kHugePage) madvise(block, rounded, MADV_HUGEPAGE);  // only a wish: it may fail
  return block;
}

}  // namespace

Workspace::Workspace(const Execution& execution, std::size_t bytes) {
  if (execution.workspace != nullptr) {
    data_ = execution.workspace;
  } else if (bytes > kLargestKept || kept.in_use) {
    data_ = allocate(bytes);
    allocated_ = true;
  } else {
    if (kept.block == nullptr || kept.bytes < bytes) {
      kept.block.reset();
      kept.bytes = 0;
      kept.block.reset(allocate(bytes));
      kept.bytes = bytes;
    }
    data_ = kept.block.get();
    borrowed_ = kept.in_use = true;
  }
}

Workspace::~Workspace() {
  if (borrowed_) kept.in_use = false;
  if (allocated_) std::free(data_);
}

}  // namespace strobe::api
