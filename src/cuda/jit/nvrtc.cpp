// Compiling with NVRTC. Where the library is found is the subject of nvrtc_search.cpp.
#include "cuda/jit/nvrtc.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "strobe/types.hpp"

namespace strobe::cuda {
namespace {

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

constexpr int kOldestNvrtc = 12000;

/// NVRTC loads libnvrtc-builtins when it compiles, by name alone, and finds it beside itself only where the loader
/// heeds its RUNPATH. (It does not under the address sanitizer of clang 14, and NVRTC 13.5 then fails with
/// NVRTC_ERROR_BUILTIN_OPERATION_FAILURE.) Once loaded, it is found by its name.
void load_builtins(const Nvrtc& nvrtc) {
  const std::string folder = nvrtc.path().substr(0, nvrtc.path().rfind('/') + 1);
  const std::string name = "libnvrtc-builtins.so." + nvrtc.version_text();
  if (!folder.empty()) dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_LOCAL);
}

}  // namespace

const char* Nvrtc::resolve(void* library) {
  if (!find(library, "nvrtcVersion", get_version)) return "nvrtcVersion";
  if (!find(library, "nvrtcGetErrorString", error_text)) return "nvrtcGetErrorString";
  if (!find(library, "nvrtcCreateProgram", create)) return "nvrtcCreateProgram";
  if (!find(library, "nvrtcDestroyProgram", destroy)) return "nvrtcDestroyProgram";
  if (!find(library, "nvrtcCompileProgram", compile_program)) return "nvrtcCompileProgram";
  if (!find(library, "nvrtcGetProgramLogSize", log_size)) return "nvrtcGetProgramLogSize";
  if (!find(library, "nvrtcGetProgramLog", get_log)) return "nvrtcGetProgramLog";
  if (!find(library, "nvrtcGetCUBINSize", cubin_size)) return "nvrtcGetCUBINSize";
  if (!find(library, "nvrtcGetCUBIN", get_cubin)) return "nvrtcGetCUBIN";
  if (!find(library, "nvrtcGetPTXSize", ptx_size)) return "nvrtcGetPTXSize";
  if (!find(library, "nvrtcGetPTX", get_ptx)) return "nvrtcGetPTX";
  if (!find(library, "nvrtcGetNumSupportedArchs", architecture_count)) return "nvrtcGetNumSupportedArchs";
  if (!find(library, "nvrtcGetSupportedArchs", get_architectures)) return "nvrtcGetSupportedArchs";
  return nullptr;
}

Nvrtc Nvrtc::load(const std::vector<std::string>& candidates, int newest_major) {
  std::string tried;
  for (const std::string& candidate : candidates) {
    Nvrtc nvrtc;
    std::string why;
    // Never closed: it keeps state of its own per thread.
    void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* reason = dlerror();
      why = reason != nullptr ? reason : "dlopen gave no reason";
    } else if (const char* absent = nvrtc.resolve(library)) {
      why = candidate + ": has no " + absent;
    } else {
      int major = 0, minor = 0, count = 0;
      nvrtc.get_version(&major, &minor);
      nvrtc.version_ = major * 1000 + minor * 10;
      if (nvrtc.version_ >= kOldestNvrtc && major <= newest_major && nvrtc.architecture_count(&count) == 0) {
        nvrtc.architectures_.resize(std::size_t(count));
        nvrtc.get_architectures(nvrtc.architectures_.data());
        std::sort(nvrtc.architectures_.begin(), nvrtc.architectures_.end());
        Dl_info where;
        const bool known = dladdr(reinterpret_cast<void*>(nvrtc.get_version), &where) != 0;
        nvrtc.path_ = known ? where.dli_fname : candidate;
        load_builtins(nvrtc);
        return nvrtc;
      }
      why = candidate + ": is NVRTC " + nvrtc.version_text() + ", must be 12.0 or later";
      if (newest_major != kAnyVersion) why += " and, for this driver, not above " + std::to_string(newest_major);
    }
    tried += "\n  " + why;
  }
  Nvrtc none;
  none.missing_ =
      "NVRTC, which compiles kernels, was not found (pip install nvidia-cuda-nvrtc, or set STROBE_NVRTC to the path of "
      "libnvrtc.so). Tried:" +
      tried;
  return none;
}

std::string Nvrtc::target_for(int architecture, const std::string& suffix) const {
  int best_of_family = 0;
  for (const int known : architectures_) {
    if (known == architecture) return "sm_" + std::to_string(known) + suffix;
    // Within a major version, later devices run what was compiled for earlier ones.
    if (known / 10 == architecture / 10 && known < architecture) best_of_family = known;
  }
  if (best_of_family != 0 && suffix.empty()) return "sm_" + std::to_string(best_of_family);
  int best = 0;
  for (const int known : architectures_) {
    if (known < architecture) best = known;
  }
  return "compute_" + std::to_string(best);
}

std::vector<char> Nvrtc::compile(const Recipe& recipe, const std::string& target, const std::string& description,
                                 std::string* log, const std::vector<std::string>& extra) const {
  const auto require = [&](Result result, const char* step) {
    if (result == 0) return;
    throw Error(ErrorCode::kInternal, "NVRTC's answer to " + std::string(step) + " for " + description,
                error_text(result), "NVRTC_SUCCESS");
  };
  // The texts are embedded with a terminating zero, as NVRTC wants them.
  std::vector<const char*> texts, paths, options;
  std::vector<std::string> path_storage, option_storage = recipe.options;
  for (const KernelText& text : recipe.texts) path_storage.emplace_back(text.path);
  for (std::size_t i = 1; i < recipe.texts.size(); ++i) {
    texts.push_back(recipe.texts[i].text.data());
    paths.push_back(path_storage[i].c_str());
  }
  option_storage.push_back("--gpu-architecture=" + target);
  // Headers shared with the host have constexpr functions without marks.
  option_storage.push_back("--device-as-default-execution-space");
  option_storage.insert(option_storage.end(), extra.begin(), extra.end());
  for (const std::string& option : option_storage) options.push_back(option.c_str());

  struct Holder {
    const Nvrtc& nvrtc;
    Program program = nullptr;
    ~Holder() {
      if (program != nullptr) nvrtc.destroy(&program);
    }
  } holder{*this};
  require(create(&holder.program, recipe.texts[0].text.data(), path_storage[0].c_str(), int(texts.size()), texts.data(),
                 paths.data()),
          "nvrtcCreateProgram");
  const Result result = compile_program(holder.program, int(options.size()), options.data());
  std::size_t bytes = 0;
  std::string messages;
  if (log_size(holder.program, &bytes) == 0 && bytes > 1) {
    messages.resize(bytes);
    get_log(holder.program, messages.data());
    messages.resize(bytes - 1);  // without its zero
  }
  if (log != nullptr) *log = messages;
  if (result != 0) {
    throw Error(ErrorCode::kInternal, description + " for " + target,
                "not compiled by NVRTC " + version_text() + " (" + error_text(result) + "):\n" + messages + "\n",
                "a kernel that compiles; please report this");
  }
  const bool is_ptx = target.starts_with("compute_");
  require((is_ptx ? ptx_size : cubin_size)(holder.program, &bytes), "a question for the size of the result");
  std::vector<char> image(bytes);
  require((is_ptx ? get_ptx : get_cubin)(holder.program, image.data()), "a question for the result");
  return image;
}

std::string Nvrtc::version_text() const {
  return std::to_string(version_ / 1000) + "." + std::to_string(version_ % 1000 / 10);
}

const Nvrtc& nvrtc(int newest_major) {
  static std::mutex& mutex = *new std::mutex;
  static auto& loaded = *new std::map<int, Nvrtc>;
  const std::lock_guard lock(mutex);
  auto place = loaded.find(newest_major);
  if (place == loaded.end()) {
    place = loaded.emplace(newest_major, Nvrtc::load(nvrtc_candidates(), newest_major)).first;
  }
  return place->second;
}

}  // namespace strobe::cuda
