// strobe info: this build, this machine, every kernel, and the environment variables that are listened to.
#include <fmt/format.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "cpu/cpu.hpp"
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
    {"STROBE_CPU", "the best instruction set to use: sse4, avx2, avx512 or avx512_bf16"},
    {"STROBE_NUM_THREADS", "threads of the library's own pool"},
};

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

std::vector<std::string> types_of(const plan::Kernel& kernel) {
  std::vector<std::string> names;
  for (int type = 0; type <= int(DataType::kFloat8E5M2); ++type) {
    if (kernel.types >> type & 1) names.emplace_back(name_of(DataType(type)));
  }
  return names;
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
                               {"types", types_of(kernel)},
                               {"summary", kernel.summary}});
  }
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
