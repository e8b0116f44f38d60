// SHA-256 (FIPS 180-4), for names and checksums of files whose content decides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace strobe {

class Sha256 {
 public:
  void add(const void* data, std::size_t bytes);
  /// A text and its length, so that neighbouring texts cannot trade characters.
  void add_text(std::string_view text);
  /// 64 hexadecimal digits. Nothing may be added afterwards.
  std::string hex();

 private:
  void block(const unsigned char* data);

  std::uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char pending_[64] = {};
  std::size_t pending_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace strobe
