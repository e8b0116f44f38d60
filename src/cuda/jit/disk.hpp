// The disk cache: compiled kernels as files, named by what went into them. A file is written under a temporary name,
// read back and checked, then renamed, so that other processes see whole entries or none; time stamps play no part.
// Nothing here throws: a folder that cannot be read or written is a cache that holds nothing.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace strobe::cuda {

/// One file "<label>-<hash>-<compiler>.kernel": a line with the checksum, then the image.
struct DiskEntry {
  std::string label;     // "cuda.selftest-1-sm_90": for people
  std::string hash;      // of the texts, options and target: what identifies it
  std::string compiler;  // "13.5", so that one folder serves several compilers
  std::string path;
  std::size_t bytes = 0;  // of the file
};

class DiskCache {
 public:
  explicit DiskCache(std::string folder) : folder_(std::move(folder)) {}
  const std::string& folder() const { return folder_; }

  /// The image of the entry with this hash, of the newest compiler whose entry is whole. Broken entries are removed.
  struct Found {
    std::vector<char> image;
    std::string compiler;
  };
  std::optional<Found> find(const std::string& hash) const;

  /// Adds an entry, or replaces it. False (with the reason in `why_not`) where that is not possible.
  bool add(const std::string& label, const std::string& hash, const std::string& compiler,
           const std::vector<char>& image, std::string* why_not = nullptr) const;

  /// Everything that looks like an entry, whole or not, sorted by label.
  std::vector<DiskEntry> list() const;
  /// Whether an entry's file is whole.
  static bool whole(const DiskEntry& entry);
  /// Removes all entries and what killed processes left behind; returns how many files went.
  int clear() const;

 private:
  std::string folder_;
};

/// STROBE_CACHE_DIR, or strobe/kernels in XDG_CACHE_HOME or ~/.cache; "" where there is none of them.
std::string cache_folder_from_environment();

}  // namespace strobe::cuda
