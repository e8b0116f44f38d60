// strobe cache list|warm|clear: the kernels in the disk cache, and compiling them before they are needed.
#include <fmt/format.h>
#include <unistd.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "command.hpp"
#include "cuda/cuda.hpp"
#include "cuda/jit/built_in.hpp"
#include "cuda/jit/disk.hpp"
#include "cuda/jit/store.hpp"
#include "strobe/strobe.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

std::string size_text(std::size_t bytes) { return fmt::format("{:.1f} KiB", double(bytes) / 1024.0); }

cuda::DiskCache open_cache() {
  const std::string folder = cuda::cache_folder_from_environment();
  if (folder.empty())
    throw UsageError("there is no cache folder: STROBE_CACHE_DIR, XDG_CACHE_HOME and HOME are not set");
  return cuda::DiskCache(folder);
}

ExitStatus list(bool json) {
  const cuda::DiskCache cache = open_cache();
  ordered_json entries = ordered_json::array();
  std::size_t total = 0;
  for (const cuda::DiskEntry& entry : cache.list()) {
    total += entry.bytes;
    entries.push_back({{"kernel", entry.label},
                       {"compiler", "NVRTC " + entry.compiler},
                       {"bytes", entry.bytes},
                       {"whole", cuda::DiskCache::whole(entry)},
                       {"path", entry.path}});
  }
  if (json) {
    fmt::print("{}\n", ordered_json{{"folder", cache.folder()}, {"bytes", total}, {"entries", entries}}.dump(2));
    return kSucceeded;
  }
  for (const ordered_json& entry : entries) {
    fmt::print("{:60} {:12} {:>12}{}\n", entry["kernel"].get<std::string>(), entry["compiler"].get<std::string>(),
               size_text(entry["bytes"].get<std::size_t>()),
               entry["whole"].get<bool>() ? "" : "  damaged: will be compiled again");
  }
  fmt::print("{} kernels, {} in {}\n", entries.size(), size_text(total), cache.folder());
  return kSucceeded;
}

struct WarmFlags {
  std::vector<int> architectures;
  std::string kernel;
  int jobs = 0;
};

/// The devices to warm for: those named by --architecture, otherwise those of this machine.
std::vector<CudaDevice> devices_for(const WarmFlags& flags) {
  std::vector<CudaDevice> devices;
  for (const int architecture : flags.architectures) {
    CudaDevice device;
    device.capability = architecture;
    device.architecture = cuda::architecture_of(architecture);
    devices.push_back(device);
  }
  if (!devices.empty()) return devices;
  for (int index = 0; index < cuda::device_count(); ++index) {
    const CudaDevice& device = cuda::device(index);
    bool known = false;
    for (const CudaDevice& other : devices) known |= other.capability == device.capability;
    if (!known) devices.push_back(device);
  }
  if (devices.empty()) {
    throw UsageError("there is no GPU to warm the cache for (" + cuda::why_no_device() +
                     "); name one: --architecture 90");
  }
  return devices;
}

ExitStatus warm(const WarmFlags& flags, bool json) {
  const cuda::DiskCache cache = open_cache();
  cuda::StoreSettings settings = cuda::settings_from_environment();
  settings.jit = cuda::Jit::kOn;

  struct Job {
    cuda::KernelKey key;
    CudaDevice device;
    std::string error;
    bool compiled = false;
  };
  std::vector<Job> jobs;
  for (const CudaDevice& device : devices_for(flags)) {
    for (const cuda::KernelVariant& variant : cuda::kernel_variants()) {
      const bool wanted = cuda::describe(variant.key).find(flags.kernel) != std::string::npos;
      if (wanted && cuda::includes(variant, device.architecture)) jobs.push_back({variant.key, device, "", false});
    }
  }
  const bool progress = isatty(STDERR_FILENO) != 0;
  std::atomic<std::size_t> next{0}, done{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < jobs.size();) {
      Job& job = jobs[i];
      try {
        job.compiled = cuda::find_image(job.key, job.device, settings).source == cuda::Source::kCompiled;
      } catch (const Error& error) {
        job.error = error.what();
      }
      if (progress) fmt::print(stderr, "\r{} of {} kernels", ++done, jobs.size());
    }
  };
  const unsigned count = flags.jobs > 0 ? unsigned(flags.jobs) : std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < count; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (progress) fmt::print(stderr, "\r{:40}\r", "");

  std::size_t compiled = 0, failed = 0;
  std::string first_error;
  for (const Job& job : jobs) {
    compiled += job.compiled ? 1 : 0;
    failed += job.error.empty() ? 0 : 1;
    if (first_error.empty()) first_error = job.error;
  }
  if (json) {
    const ordered_json result{
        {"folder", cache.folder()}, {"kernels", jobs.size()}, {"compiled", compiled}, {"failed", failed}};
    fmt::print("{}\n", result.dump(2));
  } else {
    fmt::print("{} kernels: {} compiled, {} there already, {} failed; in {}\n", jobs.size(), compiled,
               jobs.size() - compiled - failed, failed, cache.folder());
  }
  if (failed > 0) fmt::print(stderr, "strobe cache: {}\n", first_error);
  return failed == 0 ? kSucceeded : kFailed;
}

ExitStatus clear(bool json) {
  const cuda::DiskCache cache = open_cache();
  const int removed = cache.clear();
  if (json) {
    fmt::print("{}\n", ordered_json{{"folder", cache.folder()}, {"removed", removed}}.dump(2));
  } else {
    fmt::print("{} files removed from {}\n", removed, cache.folder());
  }
  return kSucceeded;
}

}  // namespace

void add_cache(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("cache", "Kernels that were compiled on this machine: list, warm, clear");
  command->require_subcommand(1);
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print one JSON object");

  CLI::App* listing = command->add_subcommand("list", "What is in the disk cache");
  listing->callback([json, &action] { action = [json] { return list(*json); }; });

  CLI::App* warming = command->add_subcommand("warm", "Compile every kernel of the manifest that is not there yet");
  auto flags = std::make_shared<WarmFlags>();
  warming->add_option("--architecture", flags->architectures, "80,86,89,90,100,120: for these GPUs, not this machine's")
      ->delimiter(',')
      ->check(CLI::Range(80, 129));
  warming->add_option("--kernel", flags->kernel, "Only kernels whose description contains this");
  warming->add_option("--jobs", flags->jobs, "Kernels to compile at once")->check(CLI::Range(1, 1024));
  warming->callback([json, flags, &action] { action = [json, flags] { return warm(*flags, *json); }; });

  CLI::App* clearing = command->add_subcommand("clear", "Remove everything from the disk cache");
  clearing->callback([json, &action] { action = [json] { return clear(*json); }; });
  for (CLI::App* sub : {listing, warming, clearing}) sub->add_flag("--json", *json, "Print one JSON object");
}

}  // namespace strobe::tools
