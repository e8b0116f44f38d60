// strobe info: this build, this machine, every kernel, and the environment variables that are listened to.
#include <fmt/format.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "cpu/cpu.hpp"
#include "cuda/cuda.hpp"
#include "cuda/host/driver.hpp"
#include "cuda/jit/built_in.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/nvrtc.hpp"
#include "plan/plan.hpp"
#include "strobe/strobe.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

struct Variable {
  const char* name;
  const char* meaning;
};
constexpr Variable kVariables[] = {
    {"STROBE_CPU", "the best instruction set to use: sse4, avx2, avx512, avx512_bf16 or amx_bf16"},
    {"STROBE_NUM_THREADS", "threads of the library's own pool"},
    {"STROBE_JIT", "CUDA kernels: on (compiled when needed), cached-only or off (built in only)"},
    {"STROBE_CACHE_DIR", "where compiled CUDA kernels are kept"},
    {"STROBE_NVRTC", "path of the NVRTC library that compiles CUDA kernels"},
    {"STROBE_CUDA_DRIVER", "path of another CUDA driver than libcuda.so.1"},
};

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

std::vector<std::string> types_of(unsigned types) {
  std::vector<std::string> names;
  for (int type = 0; type <= int(DataType::kFloat8E5M2); ++type) {
    if (types >> type & 1) names.emplace_back(name_of(DataType(type)));
  }
  return names;
}

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// Driver, compiler, GPUs and where kernels come from. What is missing is null, with the reason beside it.
ordered_json describe_cuda() {
  ordered_json info;
  const cuda::Driver& driver = cuda::driver();
  info["driver"] = driver.usable() ? ordered_json(version_text(driver.version)) : ordered_json(nullptr);
  info["missing"] = cuda::why_no_device();
  info["devices"] = ordered_json::array();
  for (int index = 0; index < cuda::device_count(); ++index) {
    const CudaDevice& device = cuda::device(index);
    info["devices"].push_back({{"index", index},
                               {"name", device.name},
                               {"architecture", device.architecture},
                               {"capability", device.capability},
                               {"multiprocessors", device.multiprocessors},
                               {"shared_bytes_per_block", device.shared_bytes_per_block},
                               {"l2_bytes", device.l2_bytes},
                               {"memory_bytes", device.memory_bytes}});
  }
  const cuda::Nvrtc& compiler = cuda::nvrtc();
  info["nvrtc"] = compiler.usable() ? ordered_json{{"version", compiler.version_text()}, {"path", compiler.path()}}
                                    : ordered_json(nullptr);
  info["nvrtc_missing"] = compiler.missing();
  info["built_in"] = {{"architectures", cuda::built_in_architectures()}, {"kernels", cuda::built_in_kernels().size()}};
  const cuda::DiskCache cache(cuda::cache_folder_from_environment());
  info["cache"] = {{"folder", cache.folder()}, {"kernels", cache.list().size()}};
  return info;
}

ordered_json describe() {
  const CpuDevice& device = cpu::this_machine();
  ordered_json info;
  info["version"] = version();
  info["compiler"] = compiler();
  info["instruction_sets"] = ordered_json::array();
  for (int id = 0; id <= int(device.best); ++id) info["instruction_sets"].push_back(name_of(Isa(id)));
  info["limited_by_environment"] = device.limited;
  info["threads"] = default_executor().concurrency();
  info["cache_bytes"] = {{"l1", device.l1_bytes}, {"l2", device.l2_bytes}, {"l3", device.l3_bytes}};
  info["kernels"] = ordered_json::array();
  for (const plan::Kernel& kernel : plan::kernels()) {
    info["kernels"].push_back({{"name", kernel.name},
                               {"runs_here", kernel.isa <= device.best},
                               {"types", types_of(kernel.types)},
                               {"summary", kernel.summary}});
  }
  for (const cuda::KernelRow& row : cuda::kernel_rows()) {
    bool runs_here = false;
    for (int index = 0; index < cuda::device_count(); ++index) {
      const int architecture = cuda::device(index).architecture;
      const bool exact = *row.suffix != '\0';
      runs_here |= exact ? architecture == row.lowest_architecture : architecture >= row.lowest_architecture;
    }
    info["kernels"].push_back(
        {{"name", row.name}, {"runs_here", runs_here}, {"types", types_of(row.types)}, {"summary", row.summary}});
  }
  info["cuda"] = describe_cuda();
  info["environment"] = ordered_json::object();
  for (const Variable& variable : kVariables) {
    const char* value = std::getenv(variable.name);
    info["environment"][variable.name] = value != nullptr ? ordered_json(value) : ordered_json(nullptr);
  }
  return info;
}

std::string joined(const ordered_json& names) {
  return fmt::format("{}", fmt::join(names.get<std::vector<std::string>>(), " "));
}

void print_cuda(const ordered_json& cuda) {
  fmt::print("\nCUDA\n");
  const ordered_json& driver = cuda["driver"];
  fmt::print("  driver      {}\n", driver.is_null() ? "none" : "for CUDA " + driver.get<std::string>());
  if (cuda["devices"].empty()) fmt::print("  devices     none: {}\n", cuda["missing"].get<std::string>());
  for (const ordered_json& device : cuda["devices"]) {
    fmt::print("  cuda:{}      {}, architecture {}, {} multiprocessors, {} KiB of shared memory a block, {:.0f} GiB\n",
               device["index"].get<int>(), device["name"].get<std::string>(), device["capability"].get<int>(),
               device["multiprocessors"].get<int>(), device["shared_bytes_per_block"].get<int>() >> 10,
               double(device["memory_bytes"].get<std::int64_t>()) / double(1 << 30));
  }
  const ordered_json& nvrtc = cuda["nvrtc"];
  fmt::print("  NVRTC       {}\n", nvrtc.is_null()
                                       ? cuda["nvrtc_missing"].get<std::string>()
                                       : nvrtc["version"].get<std::string>() + ", " + nvrtc["path"].get<std::string>());
  fmt::print("  built in    {} kernels, for: {}\n", cuda["built_in"]["kernels"].get<std::size_t>(),
             cuda["built_in"]["architectures"].get<std::string>());
  const std::string folder = cuda["cache"]["folder"].get<std::string>();
  fmt::print("  disk cache  {} kernels in {}\n", cuda["cache"]["kernels"].get<std::size_t>(),
             folder.empty() ? "no folder (STROBE_CACHE_DIR)" : folder);
}

void print(const ordered_json& info) {
  fmt::print("strobe            {}\n", info["version"].get<std::string>());
  fmt::print("compiler          {}\n", info["compiler"].get<std::string>());
  fmt::print("instruction sets  {}{}\n", joined(info["instruction_sets"]),
             info["limited_by_environment"].get<bool>() ? " (limited by STROBE_CPU)" : "");
  fmt::print("threads           {}\n", info["threads"].get<int>());
  const ordered_json& caches = info["cache_bytes"];
  fmt::print("caches            L1 {} KiB, L2 {} KiB, L3 {} MiB\n", caches["l1"].get<std::int64_t>() >> 10,
             caches["l2"].get<std::int64_t>() >> 10, caches["l3"].get<std::int64_t>() >> 20);
  fmt::print("\nkernels\n");
  for (const ordered_json& kernel : info["kernels"]) {
    fmt::print("  {:24} {:3} {} [{}]\n", kernel["name"].get<std::string>(),
               kernel["runs_here"].get<bool>() ? "yes" : "no", kernel["summary"].get<std::string>(),
               joined(kernel["types"]));
  }
  print_cuda(info["cuda"]);
  fmt::print("\nenvironment\n");
  for (const Variable& variable : kVariables) {
    const ordered_json& value = info["environment"][variable.name];
    fmt::print("  {:18} {:12} {}\n", variable.name, value.is_null() ? "(not set)" : value.get<std::string>(),
               variable.meaning);
  }
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("info", "This build, this machine, every kernel, environment variables");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([json, &action] {
    action = [json] {
      const ordered_json info = describe();
      if (*json) {
        fmt::print("{}\n", info.dump(2));
      } else {
        print(info);
      }
      return kSucceeded;
    };
  });
}

}  // namespace strobe::tools
