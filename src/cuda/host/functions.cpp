// A hash table that only grows: entries are immutable, readers follow atomic pointers, writers take a mutex.
#include "cuda/host/functions.hpp"

#include <array>
#include <memory>
#include <vector>

#include "cuda/host/capture.hpp"
#include "cuda/jit/store.hpp"

namespace strobe::cuda {
namespace {

struct Entry {
  KernelKey key;
  unsigned long long context_id;
  CuFunction function;
};

std::size_t hash(const KernelKey& key, unsigned long long context_id) {
  // Products that wait for one another would take most of a look-up's time.
  constexpr std::uint64_t kFactors[kMaxOptions] = {0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93,
                                                   0xC2B2AE3D27D4EB4F, 0x9FB21C651E98DF25, 0xA0761D6478BD642F};
  std::uint64_t state = (context_id << 32 ^ std::uint64_t(key.id)) * 0x9E3779B97F4A7C15;
  for (int n = 0; n < kMaxOptions; ++n) state += std::uint32_t(key.values[n]) * kFactors[n];
  return state ^ (state >> 29);
}

class Table {
 public:
  explicit Table(std::size_t capacity) : capacity_(capacity), places_(new std::atomic<const Entry*>[capacity]()) {}

  const Entry* find(const KernelKey& key, unsigned long long context_id) const {
    for (std::size_t place = hash(key, context_id);; ++place) {
      const Entry* entry = places_[place % capacity_].load(std::memory_order_acquire);
      if (entry == nullptr || (entry->context_id == context_id && entry->key == key)) return entry;
    }
  }
  void insert(const Entry* entry) {
    std::size_t place = hash(entry->key, entry->context_id);
    while (places_[place % capacity_].load(std::memory_order_relaxed) != nullptr) ++place;
    places_[place % capacity_].store(entry, std::memory_order_release);
    ++size_;
  }
  bool crowded() const { return 2 * size_ >= capacity_; }
  /// A table of twice the size with the same entries.
  std::unique_ptr<Table> grown() const {
    auto larger = std::make_unique<Table>(2 * capacity_);
    for (std::size_t place = 0; place < capacity_; ++place) {
      if (const Entry* entry = places_[place].load(std::memory_order_relaxed)) larger->insert(entry);
    }
    return larger;
  }

 private:
  std::size_t capacity_, size_ = 0;  // capacity_ is a power of two, so % costs an `and` once inlined
  std::unique_ptr<std::atomic<const Entry*>[]> places_;
};

/// The table in use, and those that were outgrown: a reader may still be in one, and all of them together are smaller
/// than the last. Never destroyed, since other static objects may launch while they are.
struct Tables {
  std::vector<std::unique_ptr<Table>> all;
  std::atomic<Table*> current;
  std::mutex insertion;

  Tables() {
    all.push_back(std::make_unique<Table>(256));
    current = all.back().get();
  }
  void insert(const Entry* entry) {
    const std::lock_guard lock(insertion);
    if (all.back()->crowded()) {
      all.push_back(all.back()->grown());
      current.store(all.back().get(), std::memory_order_release);
    }
    all.back()->insert(entry);
  }
};
Tables& tables() {
  static Tables& instance = *new Tables;
  return instance;
}

// Loading the same kernel twice at once would waste seconds; different kernels may compile side by side.
std::array<std::mutex, 16> loading;

bool image_refused(CuResult result) {
  return result == kCuInvalidImage || result == kCuNoBinaryForGpu || result == kCuUnsupportedPtx;
}

CuFunction load(const KernelKey& key, const CudaDevice& device) {
  const Driver& cu = driver();
  const CaptureRelaxed relaxed;
  // An image that this driver refuses (made by a compiler too new for it) is no reason to give up: the next source may
  // have another.
  StoreSettings settings = settings_from_environment();
  settings.newest_compiler = cu.version / 1000;
  Image image = find_image(key, device, settings);
  CuModule module = nullptr;
  CuResult result = cu.module_load(&module, image.data());
  while (image_refused(result) && image.source != Source::kCompiled) {
    image = find_image(key, device, settings, Source(int(image.source) + 1));
    result = cu.module_load(&module, image.data());
  }
  if (result != kCuSuccess) {
    fail(result, "loading " + describe(key) + " (" + image.origin + ") for a driver of CUDA " +
                     std::to_string(cu.version / 1000) + "." + std::to_string(cu.version % 1000 / 10));
  }
  CuFunction function = nullptr;
  result = cu.module_function(&function, module, row_of(key.id).function);
  if (result != kCuSuccess) fail(result, "finding the function of " + describe(key));

  // More than 48 KiB of shared memory must be asked for. Allowing the most once costs nothing later.
  int static_shared = 0;
  cu.function_attribute(&static_shared, kCuStaticShared, function);
  const int most = device.shared_bytes_per_block - static_shared;
  if (most > 0) {
    result = cu.set_function_attribute(function, kCuMaxDynamicShared, most);
    if (result != kCuSuccess) fail(result, "allowing shared memory for " + describe(key));
  }
  return function;
}

}  // namespace

CuFunction loaded_function(const KernelKey& key, unsigned long long context_id, const CudaDevice& device) {
  const auto find = [&] { return tables().current.load(std::memory_order_acquire)->find(key, context_id); };
  if (const Entry* entry = find()) return entry->function;
  const std::lock_guard only_once(loading[hash(key, context_id) % loading.size()]);
  if (const Entry* entry = find()) return entry->function;
  const auto* entry = new Entry{key, context_id, load(key, device)};
  tables().insert(entry);
  return entry->function;
}

}  // namespace strobe::cuda
