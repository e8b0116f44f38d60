// Images are shared libraries: they are written to files without names, and loaded from there.
#include "cuda/simulator/load.hpp"

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

namespace strobe::simulator {
namespace {

constexpr std::size_t kPage = 4096;

struct Mapping {
  void* start;
  std::size_t bytes;
};
std::mutex& mutex = *new std::mutex;
auto& mappings = *new std::map<void*, Mapping>;

std::size_t rounded(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

Kernel load(const void* image) {
  if (std::strncmp(static_cast<const char*>(image), ELFMAG, SELFMAG) != 0) return {};
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  if (header.e_machine != EM_X86_64 && header.e_machine != EM_AARCH64) return {};
  const std::size_t bytes = header.e_shoff + std::size_t(header.e_shnum) * header.e_shentsize;
  const int file = memfd_create("simulated kernel", 0);
  const bool written = file >= 0 && write(file, image, bytes) == ssize_t(bytes);
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (library == nullptr) std::fprintf(stderr, "simulated GPU: %s\n", dlerror());
  if (library == nullptr) return {};  // the file stays open: dlopen knows libraries by their path
  Kernel kernel;
  kernel.run = reinterpret_cast<void (*)(const void*)>(dlsym(library, "strobe_simulated_kernel"));
  const auto* const cluster = static_cast<const unsigned*>(dlsym(library, "strobe_simulated_cluster"));
  if (cluster != nullptr) kernel.cluster = *cluster;
  return kernel;
}

void* allocate_guarded(std::size_t bytes) {
  const std::size_t used = rounded(bytes, 16), pages = rounded(used, kPage) + kPage;
  void* start = mmap(nullptr, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  char* const guard = static_cast<char*>(start) + pages - kPage;
  mprotect(guard, kPage, PROT_NONE);
  const std::lock_guard lock(mutex);
  mappings[guard - used] = {start, pages};
  return guard - used;
}

void free_guarded(void* memory) {
  const std::lock_guard lock(mutex);
  const auto place = mappings.find(memory);
  if (place == mappings.end()) return;
  munmap(place->second.start, place->second.bytes);
  mappings.erase(place);
}

}  // namespace strobe::simulator
