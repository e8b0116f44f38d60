// See host_times.hpp.
#include "bench/host_times.hpp"

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "bench/gpu_problem.hpp"
#include "cuda/host/devices.hpp"
#include "cuda/jit/nvrtc.hpp"
#include "cuda/jit/recipe.hpp"
#include "cuda/jit/store.hpp"
#include "measure.hpp"

namespace strobe::tools {
namespace {

/// Microseconds of the host for a call that puts something on the stream.
template <typename Call>
double host_microseconds(cuda::Stream stream, const Call& call) {
  constexpr int kBatches = 25, kCalls = 200;  // fewer than the driver queues before it makes the host wait
  std::vector<double> times;
  for (int batch = 0; batch < kBatches; ++batch) {
    times.push_back(seconds([&] {
                      for (int i = 0; i < kCalls; ++i) call();
                    }) /
                    kCalls * 1e6);
    cuda::synchronise(stream);
  }
  return median(times);
}

/// A folder for a disk cache, removed in the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "strobe_bench_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw FileError(pattern, "the folder", "not made", "writable");
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Seconds until a kernel can be launched, whose image `make_image` brings.
template <typename MakeImage>
double seconds_to_load(const cuda::KernelKey& key, const MakeImage& make_image) {
  cuda::CuModule module = nullptr;
  const double time = seconds([&] {
    const auto image = make_image();
    cuda::CuFunction function = nullptr;
    cuda::require(cuda::driver().module_load(&module, image.data()), "loading a kernel");
    cuda::require(cuda::driver().module_function(&function, module, row_of(key.id).function), "finding its function");
  });
  cuda::driver().module_unload(module);
  return time;
}

void bench_first_call(const CudaDevice& device, cuda::Stream stream, const cuda::KernelKey& key, Output& output) {
  const cuda::Launcher context(stream);
  const std::string name = row_of(key.id).name;
  const int newest = cuda::driver().version / 1000;
  const cuda::Nvrtc& compiler = cuda::nvrtc(newest);
  if (!compiler.usable()) return output.text("first call, compiled: {}\n", compiler.missing());
  // A text that nobody has compiled before: NVRTC 13 keeps results of its own.
  const std::string unheard_of =
      "-DSTROBE_NOW=" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count());
  const double compiled = seconds_to_load(key, [&] {
    const cuda::Recipe recipe = cuda::recipe_for(key, device.architecture);
    const std::string target = compiler.target_for(device.capability, row_of(key.id).suffix);
    return compiler.compile(recipe, target, describe(key), nullptr, {unheard_of});
  });
  output.figure(("first call, compiled: " + name).c_str(), compiled, "s", 3, false);

  const ScratchFolder folder;
  cuda::StoreSettings settings{.cache_folder = folder.path()};
  settings.newest_compiler = newest;
  const auto from_disk = [&] { return cuda::find_image(key, device, settings, cuda::Source::kDisk); };
  from_disk();  // is compiled, and put there
  std::vector<double> times;
  for (int round = 0; round < 10; ++round) times.push_back(seconds_to_load(key, from_disk) * 1e3);
  output.figure(("first call, from disk: " + name).c_str(), median(times), "ms", 30, false);
}

}  // namespace

void bench_host_times(int index, Output& output) {
  const CudaDevice& device = cuda::device(index);
  const cuda::OwnStream own(index);
  const cuda::Stream stream = own.get();
  const BenchCase row{.dtype = DataType::kBFloat16, .query_length = 128, .key_length = 128};
  GpuProblem problem(row, stream);
  const double planned = host_microseconds(stream, [&] { problem.run(); });
  output.figure("host time of a planned call, launch included", planned, "us", 8, false);

  // What the driver takes for itself: a plan's call is one or more launches, and a few clear memory before.
  const cuda::KernelKey nothing{cuda::KernelId::kSelfTest, {1}};
  cuda::Launcher launcher(stream);
  const struct { char blank[64]; } params{};
  const cuda::DeviceMemory memory(index, 256);
  const auto part = [&](const char* name, double microseconds) {
    output.text("{:44} {:10.3f} us\n", name, microseconds);
    output.line({{"case", name}, {"value", microseconds}, {"unit", "us"}});
  };
  part("the driver's share: a launch",
       host_microseconds(stream, [&] { launcher.launch(nothing, {.x = 1}, 32, 0, &params); }));
  part("the driver's share: a clear", host_microseconds(stream, [&] { launcher.clear(memory.data(), 4); }));

  for (const char* family : {"sm80.forward", "sm90.forward", "sm80.backward"}) {
    BenchCase each = row;
    if (std::string(family).ends_with("backward")) each.pass = "backward";
    try {
      bench_first_call(device, stream, GpuProblem(each, stream, family).key(), output);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      output.text("first call, {}: {}\n", family, error.what());
    }
  }
}

}  // namespace strobe::tools
