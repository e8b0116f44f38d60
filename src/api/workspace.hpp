// Memory for one call: the caller's, or a block that this thread keeps for its next call, or an allocation.
#pragma once

#include <cstddef>

#include "strobe/attention.hpp"

namespace strobe::api {

class Workspace {
 public:
  /// Uses execution.workspace where given (checked before), otherwise finds `bytes` itself.
  /// @throws Error (kOutOfMemory).
  Workspace(const Execution& execution, std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  bool borrowed_ = false;  // this thread's kept block
  bool allocated_ = false;
};

}  // namespace strobe::api
