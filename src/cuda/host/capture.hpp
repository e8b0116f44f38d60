// Calls of the driver that a capture of some stream would forbid, such as loading a module, allowed for a while.
#pragma once

#include "cuda/host/driver.hpp"

namespace strobe::cuda {

/// While this lives, such calls are allowed in this thread: they neither fail nor spoil the capture.
class CaptureRelaxed {
 public:
  CaptureRelaxed() { driver().capture_mode(&mode_); }
  ~CaptureRelaxed() { driver().capture_mode(&mode_); }
  CaptureRelaxed(const CaptureRelaxed&) = delete;
  CaptureRelaxed& operator=(const CaptureRelaxed&) = delete;

 private:
  int mode_ = kCuCaptureRelaxed;
};

}  // namespace strobe::cuda
