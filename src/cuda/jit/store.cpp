// The order of the sources, and what is said when none has the kernel.
#include "cuda/jit/store.hpp"

#include <cstdlib>
#include <optional>
#include <string_view>

#include "cuda/jit/built_in.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/nvrtc.hpp"
#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

std::string target_text(const KernelKey& key, const CudaDevice& device) {
  return "sm_" + std::to_string(device.capability) + row_of(key.id).suffix;
}

std::optional<Image> from_library(const KernelKey& key, const CudaDevice& device) {
  for (const BuiltInKernel& kernel : built_in_kernels()) {
    if (kernel.architecture != device.architecture || !(kernel.key == key)) continue;
    Image image;
    image.built_in = kernel.data;
    image.origin = "built in for sm_" + std::to_string(kernel.architecture);
    return image;
  }
  return {};
}

std::optional<Image> from_disk(const KernelKey& key, const CudaDevice& device, const DiskCache& disk) {
  auto found = disk.find(cache_hash(key, device));
  if (!found) return {};
  Image image;
  image.bytes = std::move(found->image);
  image.source = Source::kDisk;
  image.origin = "in " + disk.folder() + ", compiled by NVRTC " + found->compiler;
  return image;
}

Image compiled(const KernelKey& key, const CudaDevice& device, const Nvrtc& compiler, const DiskCache& disk) {
  Image image;
  const std::string target = compiler.target_for(device.capability, row_of(key.id).suffix);
  image.bytes = compiler.compile(recipe_for(key, device.architecture), target, describe(key));
  image.source = Source::kCompiled;
  image.origin = "compiled by NVRTC " + compiler.version_text();
  // Where it cannot be kept (no room, no right to write) the next process compiles again; this one has what it needs.
  disk.add(cache_label(key, device), cache_hash(key, device), compiler.version_text(), image.bytes);
  return image;
}

bool is_listed(const KernelKey& key, const CudaDevice& device) {
  for (const KernelVariant& variant : kernel_variants()) {
    if (variant.key == key && includes(variant, device.architecture)) return true;
  }
  return false;
}

[[noreturn]] void missing(const KernelKey& key, const CudaDevice& device, const StoreSettings& settings,
                          const std::string& why) {
  std::string where = "not built into this library (built in for: " + std::string(built_in_architectures()) + ")";
  if (settings.jit != Jit::kOff) {
    where += settings.cache_folder.empty() ? ", there is no cache folder" : ", not in " + settings.cache_folder;
  }
  std::string remedy = "built in (cmake -DSTROBE_BUILTIN_KERNELS=" + std::to_string(device.architecture);
  if (!is_listed(key, device)) {
    remedy += ", after adding its STROBE_CUDA_VARIANT row to src/cuda/kernels.inc, which lacks it";
  }
  remedy += "), in the disk cache (strobe cache warm), or compiled on demand (STROBE_JIT=on and NVRTC)";
  throw Error(ErrorCode::kUnsupported, "the kernel " + describe(key) + " for " + target_text(key, device),
              where + ", and " + why, remedy);
}

}  // namespace

StoreSettings settings_from_environment() {
  StoreSettings settings;
  const char* jit = std::getenv("STROBE_JIT");
  const std::string_view mode = jit != nullptr ? jit : "";
  if (mode == "cached-only") {
    settings.jit = Jit::kCachedOnly;
  } else if (mode == "off") {
    settings.jit = Jit::kOff;
  } else if (!mode.empty() && mode != "on") {
    throw Error(ErrorCode::kInvalidArgument, "environment variable STROBE_JIT", std::string(mode),
                "on, cached-only or off");
  }
  settings.cache_folder = cache_folder_from_environment();
  return settings;
}

std::string cache_label(const KernelKey& key, const CudaDevice& device) {
  std::string label = row_of(key.id).name;
  const std::size_t options = options_of(key).size();
  for (std::size_t i = 0; i < options; ++i) {
    label += i == 0 ? '-' : '.';
    label += std::to_string(key.values[i]);
  }
  label += '-';
  return label + target_text(key, device);
}

std::string cache_hash(const KernelKey& key, const CudaDevice& device) {
  // Half of the digits: 128 bits, and names that fit a terminal.
  return hash_of(recipe_for(key, device.architecture), target_text(key, device)).substr(0, 32);
}

Image find_image(const KernelKey& key, const CudaDevice& device, const StoreSettings& settings, Source first) {
  if (first <= Source::kBuiltIn) {
    if (auto image = from_library(key, device)) return std::move(*image);
  }
  if (settings.jit == Jit::kOff) missing(key, device, settings, "STROBE_JIT=off forbids compiling it");
  const DiskCache disk(settings.cache_folder);
  if (first <= Source::kDisk) {
    if (auto image = from_disk(key, device, disk)) return std::move(*image);
  }
  if (settings.jit == Jit::kCachedOnly) {
    missing(key, device, settings, "STROBE_JIT=cached-only forbids compiling it");
  }
  const int newest = settings.newest_compiler > 0 ? settings.newest_compiler : Nvrtc::kAnyVersion;
  const Nvrtc& compiler = settings.compiler != nullptr ? *settings.compiler : nvrtc(newest);
  if (!compiler.usable()) missing(key, device, settings, compiler.missing());
  return compiled(key, device, compiler, disk);
}

}  // namespace strobe::cuda
