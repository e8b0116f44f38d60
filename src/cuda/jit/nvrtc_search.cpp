// Where libnvrtc may lie. Toolkits put it into the loader's path or a CUDA folder; Python wheels put it into
// site-packages/nvidia/..., which no loader knows.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "cuda/jit/nvrtc.hpp"

namespace strobe::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
/// In site-packages: the wheels of CUDA 13, and those of CUDA 12.
constexpr const char* kWheelFolders[] = {"nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

void add_folder(const fs::path& folder, std::vector<std::string>& candidates) {
  std::error_code ignored;
  for (const char* name : kNames) {
    const std::string path = (folder / name).string();
    const bool known = std::find(candidates.begin(), candidates.end(), path) != candidates.end();
    if (!known && fs::exists(path, ignored)) candidates.push_back(path);
  }
}

void add_site_packages(const fs::path& folder, std::vector<std::string>& candidates) {
  for (const char* wheel : kWheelFolders) add_folder(folder / wheel, candidates);
}

/// lib/python3.*/site-packages of a Python installation or virtual environment.
void add_python(const fs::path& prefix, std::vector<std::string>& candidates) {
  std::error_code error;
  for (const char* lib : {"lib", "lib64"}) {
    for (fs::directory_iterator entry(prefix / lib, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().filename().string().starts_with("python3")) {
        add_site_packages(entry->path() / "site-packages", candidates);
        add_site_packages(entry->path() / "dist-packages", candidates);
      }
    }
  }
}

/// site-packages of every shared library that the process has loaded from one: PyTorch's, CuPy's, our own.
int add_loaded_library(dl_phdr_info* info, std::size_t, void* candidates) {
  for (fs::path folder = fs::path(info->dlpi_name).parent_path(); folder.has_relative_path();
       folder = folder.parent_path()) {
    const fs::path name = folder.filename();
    if (name == "site-packages" || name == "dist-packages") {
      add_site_packages(folder, *static_cast<std::vector<std::string>*>(candidates));
      break;
    }
  }
  return 0;
}

}  // namespace

std::vector<std::string> nvrtc_candidates() {
  const std::string chosen = environment("STROBE_NVRTC");
  if (!chosen.empty()) return {chosen};

  std::vector<std::string> candidates(std::begin(kNames), std::end(kNames));
  dl_iterate_phdr(add_loaded_library, &candidates);
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    const std::string folder = environment(variable);
    if (!folder.empty()) add_folder(fs::path(folder) / "lib64", candidates);
  }
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    const std::string prefix = environment(variable);
    if (prefix.empty()) continue;
    add_folder(fs::path(prefix) / "lib", candidates);
    add_python(prefix, candidates);
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error && program.filename().string().starts_with("python")) {
    add_python(program.parent_path().parent_path(), candidates);
  }
  add_folder("/usr/local/cuda/lib64", candidates);
  std::vector<fs::path> toolkits;
  for (fs::directory_iterator entry("/usr/local", error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with("cuda-")) toolkits.push_back(entry->path() / "lib64");
  }
  std::sort(toolkits.rbegin(), toolkits.rend());
  for (const fs::path& folder : toolkits) add_folder(folder, candidates);
  return candidates;
}

}  // namespace strobe::cuda
