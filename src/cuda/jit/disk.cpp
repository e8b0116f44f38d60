// Files by POSIX calls, where failures are ordinary: other processes rename and remove at the same time.
#include "cuda/jit/disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/hash.hpp"

namespace strobe::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".kernel", kTemporary = ".kernel.new.";
/// First in every file; changes with the format. A line "<sha-256 of the image>\n" and the image follow.
constexpr std::string_view kMagic = "strobe kernel 1\n";
constexpr std::size_t kHeaderBytes = kMagic.size() + 64 + 1;

std::string checksum(const char* data, std::size_t bytes) {
  Sha256 hash;
  hash.add(data, bytes);
  return hash.hex();
}

class File {
 public:
  File(const std::string& path, int flags) : descriptor_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool opened() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  /// Where a network file system or a quota reports what write() did not.
  bool close() {
    const int descriptor = std::exchange(descriptor_, -1);
    return ::close(descriptor) == 0;
  }

 private:
  int descriptor_;
};

bool write_all(int descriptor, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = write(descriptor, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data.remove_prefix(std::size_t(written));
  }
  return true;
}

/// The image of a whole file, or nothing.
std::optional<std::vector<char>> read_image(const std::string& path) {
  const File file(path, O_RDONLY);
  struct stat status {};
  if (!file.opened() || fstat(file.descriptor(), &status) != 0 || status.st_size <= off_t(kHeaderBytes)) return {};
  std::string header(kHeaderBytes, '\0');
  std::vector<char> image(std::size_t(status.st_size) - kHeaderBytes);
  const auto read_into = [&](char* to, std::size_t bytes) {
    while (bytes > 0) {
      const ssize_t taken = read(file.descriptor(), to, bytes);
      if (taken < 0 && errno == EINTR) continue;
      if (taken <= 0) return false;
      to += taken;
      bytes -= std::size_t(taken);
    }
    return true;
  };
  if (!read_into(header.data(), header.size()) || !read_into(image.data(), image.size())) return {};
  if (header != std::string(kMagic) + checksum(image.data(), image.size()) + "\n") return {};
  return image;
}

/// "label-hash-compiler.kernel" taken apart; labels may contain hyphens.
std::optional<DiskEntry> entry_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.ends_with(kSuffix)) return {};
  const std::string stem = name.substr(0, name.size() - kSuffix.size());
  const std::size_t second = stem.rfind('-');
  if (second == stem.npos || second == 0) return {};
  const std::size_t first = stem.rfind('-', second - 1);
  if (first == stem.npos) return {};
  return DiskEntry{.label = stem.substr(0, first),
                   .hash = stem.substr(first + 1, second - first - 1),
                   .compiler = stem.substr(second + 1),
                   .path = path.string()};
}

int version_number(const std::string& version) {
  const std::size_t dot = version.find('.');
  return std::atoi(version.c_str()) * 1000 + (dot == version.npos ? 0 : std::atoi(version.c_str() + dot + 1));
}

/// Calls visit(path) for every file of the folder.
template <typename Visit>
void for_each_file(const std::string& folder, Visit visit) {
  std::error_code error;
  if (folder.empty()) return;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    visit(entry->path());
  }
}

}  // namespace

std::optional<DiskCache::Found> DiskCache::find(const std::string& hash) const {
  std::vector<DiskEntry> entries;
  for_each_file(folder_, [&](const fs::path& path) {
    const auto entry = entry_of(path);
    if (entry && entry->hash == hash) entries.push_back(*entry);
  });
  std::sort(entries.begin(), entries.end(), [](const DiskEntry& a, const DiskEntry& b) {
    return version_number(a.compiler) > version_number(b.compiler);
  });
  for (const DiskEntry& entry : entries) {
    if (auto image = read_image(entry.path)) return Found{std::move(*image), entry.compiler};
    unlink(entry.path.c_str());
  }
  return {};
}

bool DiskCache::add(const std::string& label, const std::string& hash, const std::string& compiler,
                    const std::vector<char>& image, std::string* why_not) const {
  const auto failed = [&](const std::string& step) {
    if (why_not != nullptr) *why_not = step + ": " + std::strerror(errno);
    return false;
  };
  if (folder_.empty()) {
    errno = ENOENT;
    return failed("there is no cache folder");
  }
  std::error_code ignored;
  fs::create_directories(folder_, ignored);

  static std::atomic<unsigned> count{0};
  const std::string path = (fs::path(folder_) / (label + "-" + hash + "-" + compiler)).string() + std::string(kSuffix);
  // Process numbers may repeat between machines that share the folder: then O_EXCL fails, and this entry is not kept.
  const std::string temporary = path.substr(0, path.size() - kSuffix.size()) + std::string(kTemporary) +
                                std::to_string(getpid()) + "." + std::to_string(count++);
  const std::string header = std::string(kMagic) + checksum(image.data(), image.size()) + "\n";
  const auto abandon = [&](const std::string& step) {
    failed(step);
    unlink(temporary.c_str());
    return false;
  };
  File file(temporary, O_WRONLY | O_CREAT | O_EXCL);
  if (!file.opened()) return failed("creating " + temporary);
  if (!write_all(file.descriptor(), header) || !write_all(file.descriptor(), {image.data(), image.size()}) ||
      fsync(file.descriptor()) != 0 || !file.close()) {
    return abandon("writing " + temporary);
  }
  if (!read_image(temporary)) return abandon("reading back " + temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return abandon("renaming " + temporary);

  // What processes that were killed left of this entry. One that is alive loses its temporary file, finds that it
  // cannot rename it, and runs on with the image that it has.
  const std::string leftover = fs::path(path).filename().string() + ".new.";
  for_each_file(folder_, [&](const fs::path& other) {
    if (other.filename().string().starts_with(leftover)) unlink(other.c_str());
  });
  return true;
}

std::vector<DiskEntry> DiskCache::list() const {
  std::vector<DiskEntry> entries;
  for_each_file(folder_, [&](const fs::path& path) {
    if (auto entry = entry_of(path)) {
      std::error_code error;
      const auto bytes = fs::file_size(path, error);
      entry->bytes = error ? 0 : std::size_t(bytes);
      entries.push_back(std::move(*entry));
    }
  });
  std::sort(entries.begin(), entries.end(),
            [](const DiskEntry& a, const DiskEntry& b) { return a.label + a.path < b.label + b.path; });
  return entries;
}

bool DiskCache::whole(const DiskEntry& entry) { return read_image(entry.path).has_value(); }

int DiskCache::clear() const {
  int removed = 0;
  for_each_file(folder_, [&](const fs::path& path) {
    const bool ours = entry_of(path).has_value() || path.filename().string().find(kTemporary) != std::string::npos;
    if (ours && unlink(path.c_str()) == 0) ++removed;
  });
  return removed;
}

std::string cache_folder_from_environment() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  };
  if (const std::string chosen = variable("STROBE_CACHE_DIR"); !chosen.empty()) return chosen;
  // The XDG specification has relative paths ignored.
  if (const std::string cache = variable("XDG_CACHE_HOME"); cache.starts_with("/")) return cache + "/strobe/kernels";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/strobe/kernels";
  return "";
}

}  // namespace strobe::cuda
