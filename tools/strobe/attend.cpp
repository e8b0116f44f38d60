// strobe attend: attention over tensors in files, with its speed, its memory and, when asked, its error.
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "attend_inputs.hpp"
#include "cases/verify.hpp"
#include "check/check.hpp"
#include "command.hpp"
#include "device_flag.hpp"
#include "files/files.hpp"
#include "gpu/copies.hpp"
#include "measure.hpp"
#include "options.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

struct AttendFlags {
  InputFlags inputs;
  OptionFlags options;
  std::string output, lse, output_dtype, device = "cpu";
  int threads = 0, repeat = 5;
  bool verify = false, json = false;
};

/// Memory for what forward writes, laid out as the query is stored.
struct Results {
  Array output, lse;
  ForwardOutputs views;
};

Results make_results(const Inputs& inputs, const AttendFlags& flags) {
  const Attention& attention = inputs.attention;
  const bool packed = attention.query_offsets.given(), narrow = size_of(attention.query.dtype) == 1;
  const DataType type = !flags.output_dtype.empty() ? parse_float_type(flags.output_dtype)
                        : narrow                    ? DataType::kFloat32
                                                    : attention.query.dtype;
  std::vector<std::int64_t> shape = inputs.query_shape;
  shape.back() = attention.value.shape[attention.value.rank - 1];
  const Tensor& query = attention.query;
  Results results;
  results.output = Array(type, shape);
  results.lse = packed ? Array(DataType::kFloat32, {query.shape[1], query.shape[0]})
                       : Array(DataType::kFloat32, {query.shape[0], query.shape[2], query.shape[1]});
  results.views = {.output = rows_view(results.output.view(), flags.inputs.layout, packed, "output"),
                   .lse = results.lse.view()};
  // Resident from the start, so that they do not count as the call's own memory.
  std::memset(results.output.buffer.data(), 0, results.output.buffer.size());
  std::memset(results.lse.buffer.data(), 0, results.lse.buffer.size());
  return results;
}

struct Timing {
  std::vector<double> calls;                // seconds
  std::optional<std::int64_t> extra_bytes;  // of the first call
};

/// Times `call` until it was run `repeat` times or has taken long enough.
template <typename Call>
std::vector<double> repeated(const Call& call, int repeat) {
  constexpr double kLongEnough = 2.0;
  std::vector<double> calls;
  double total = 0;
  for (int i = 0; i < repeat && (i == 0 || total < kLongEnough); ++i) {
    calls.push_back(call());
    total += calls.back();
  }
  if (calls.size() > 1) calls.erase(calls.begin());  // the first one pays for cold caches
  return calls;
}

Timing run_on_cpu(const Attention& attention, const ForwardOutputs& outputs, Executor* executor, int repeat) {
  Timing timing;
  std::optional<PeakMemory> peak(std::in_place);
  timing.calls = repeated(
      [&] {
        const double time = seconds([&] { forward(attention, outputs, {.executor = executor}); });
        if (peak) timing.extra_bytes = peak->extra_bytes();
        peak.reset();
        return time;
      },
      repeat);
  return timing;
}

/// Copies everything to the GPU, calls there, timed by the GPU's own clock, and copies the results back.
Timing run_on_gpu(Inputs& inputs, Results& results, Execution& execution, int repeat) {
  const int device = execution.device.index;
  const cuda::OwnStream stream(device);
  execution.stream = stream.get().handle;
  gpu::Copies copies(stream.get());
  for (Array& array : inputs.arrays) copies.add(array.buffer.data(), array.buffer.size());
  for (Array* array : {&results.output, &results.lse}) copies.add(array->buffer.data(), array->buffer.size());
  Attention attention = inputs.attention;
  ForwardOutputs outputs = results.views;
  copies.move(attention);
  copies.move(outputs.output);
  copies.move(outputs.lse);
  copies.upload();
  cuda::Event begin(device), end(device);
  Timing timing;
  timing.calls = repeated(
      [&] {
        begin.record(stream.get());
        forward(attention, outputs, execution);
        end.record(stream.get());
        end.wait();
        return begin.milliseconds_until(end) / 1e3;
      },
      repeat);
  copies.download();
  return timing;
}

void write_results(const AttendFlags& flags, const Results& results) {
  if (!flags.output.empty() && flags.output == flags.lse) {
    write_arrays(flags.output, {{"output", &results.output}, {"lse", &results.lse}});
    return;
  }
  if (!flags.output.empty()) write_arrays(flags.output, {{"output", &results.output}});
  if (!flags.lse.empty()) write_arrays(flags.lse, {{"lse", &results.lse}});
}

std::vector<std::int64_t> sizes(const Tensor& tensor) { return {tensor.shape, tensor.shape + tensor.rank}; }

ordered_json report(const Attention& attention, const Results& results, const check::Checked& checked, const Plan& plan,
                    const Timing& timing, int threads, const std::string& device) {
  const double middle = median(timing.calls);
  const double flops = actual_flops(checked.problem, checked.buffers);
  return {{"query", {{"shape", sizes(attention.query)}, {"dtype", name_of(attention.query.dtype)}}},
          {"key", {{"shape", sizes(attention.key)}, {"dtype", name_of(attention.key.dtype)}}},
          {"value", {{"shape", sizes(attention.value)}, {"dtype", name_of(attention.value.dtype)}}},
          {"output", {{"shape", sizes(results.views.output)}, {"dtype", name_of(results.output.dtype)}}},
          {"lse", {{"shape", results.lse.shape}, {"dtype", name_of(results.lse.dtype)}}},
          {"kernel", plan.kernel()},
          {"why", plan.why()},
          {"device", device},
          {"threads", threads},
          {"ms", middle * 1e3},
          {"spread", spread(timing.calls)},
          {"calls", timing.calls.size()},
          {"gflops", middle > 0 ? flops / middle / 1e9 : 0.0},
          {"workspace_bytes", plan.workspace_bytes()},
          {"extra_memory_bytes", timing.extra_bytes ? ordered_json(*timing.extra_bytes) : ordered_json(nullptr)}};
}

std::string bytes_text(double bytes) {
  return bytes < 1 << 20 ? fmt::format("{:.1f} KiB", bytes / 1024) : fmt::format("{:.1f} MiB", bytes / (1 << 20));
}

void print(const ordered_json& r, const Inputs& inputs, const Results& results) {
  const Attention& a = inputs.attention;
  for (const auto& [name, tensor] : {std::pair{"query", &a.query},
                                     {"key", &a.key},
                                     {"value", &a.value},
                                     {"output", &results.views.output},
                                     {"lse", &results.views.lse}}) {
    fmt::print("{:13} {} {}\n", name, shape_text(*tensor), name_of(tensor->dtype));
  }
  fmt::print("{:13} {}: {}\n", "kernel", r["kernel"].get<std::string>(), r["why"].get<std::string>());
  const bool on_cpu = r["device"].get<std::string>().starts_with("CPU");
  fmt::print("{:13} {:.3f} ms, median of {}, {}\n", "time", r["ms"].get<double>(), r["calls"].get<int>(),
             on_cpu ? fmt::format("{} threads", r["threads"].get<int>()) : r["device"].get<std::string>());
  fmt::print("{:13} {:.1f} GFLOP/s\n", "speed", r["gflops"].get<double>());
  const ordered_json& extra = r["extra_memory_bytes"];
  fmt::print("{:13} {} beyond the tensors at its peak (planned workspace {})\n", "memory",
             extra.is_null() ? "unknown" : bytes_text(extra.get<double>()),
             bytes_text(r["workspace_bytes"].get<double>()));
}

/// Judges the results as the case library judges kernels.
ExitStatus verify(const Inputs& inputs, const Results& results, const check::Checked& checked, bool json,
                  ordered_json& result) {
  cases::Instance instance;
  instance.attention = inputs.attention;
  instance.outputs = results.views;
  instance.checked = checked;
  const cases::Verdict verdict = cases::Judge(instance).judge();
  result["verify"] = {{"passed", verdict.passed()}};
  for (const cases::Measure& measure : verdict.measures) {
    result["verify"][measure.name] = {{"error", measure.error}, {"allowed", measure.allowed}};
    if (json) continue;
    fmt::print("{:13} {} is off by {:.3g} from float64, allowed are {:.3g}\n", "error", measure.name, measure.error,
               measure.allowed);
  }
  for (const std::string& failure : verdict.failures) fmt::print(stderr, "strobe attend: --verify: {}\n", failure);
  if (!json) fmt::print("{:13} {}\n", "verdict", verdict.passed() ? "passed" : "FAILED");
  return verdict.passed() ? kSucceeded : kFailed;
}

/// Refuses names that cannot be written before anything is computed.
void check_output_names(const AttendFlags& flags) {
  for (const std::string* path : {&flags.output, &flags.lse}) {
    if (path->empty() || is_safetensors(*path) || path->ends_with(".npy")) continue;
    throw UsageError("'" + *path + "' is no output that can be written, must end in .npy or .safetensors");
  }
  if (!flags.output.empty() && flags.output == flags.lse && !is_safetensors(flags.output)) {
    throw UsageError("--output and --lse are the same .npy, must be two files or one .safetensors");
  }
}

ExitStatus run(const AttendFlags& flags) {
  check_output_names(flags);
  Attention options;
  flags.options.apply(options);
  Execution execution{.device = parse_device(flags.device)};
  Inputs inputs = read_inputs(flags.inputs, options);
  const Threads threads(flags.threads);
  execution.executor = threads.executor();
  Results results = make_results(inputs, flags);
  // The host's copies are checked and judged whatever the device, so index tensors with mistakes are refused on a GPU
  // too.
  const check::Checked checked = check::forward(inputs.attention, results.views, check::Data::kRequired);
  const Plan plan = plan_forward(inputs.attention, results.views, execution);
  const Timing timing = execution.device.kind == DeviceKind::kCpu
                            ? run_on_cpu(inputs.attention, results.views, threads.executor(), flags.repeat)
                            : run_on_gpu(inputs, results, execution, flags.repeat);
  write_results(flags, results);

  for (const std::string& note : inputs.notes) fmt::print(stderr, "strobe attend: note: {}\n", note);
  ordered_json result =
      report(inputs.attention, results, checked, plan, timing, threads.count(), describe(execution.device));
  if (!flags.json) print(result, inputs, results);
  const ExitStatus status = flags.verify ? verify(inputs, results, checked, flags.json, result) : kSucceeded;
  if (flags.json) fmt::print("{}\n", result.dump(2));
  return status;
}

}  // namespace

void add_attend(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("attend", "Attention over tensors in .npy or .safetensors files");
  auto flags = std::make_shared<AttendFlags>();
  flags->inputs.declare(*command);
  flags->options.declare(*command);
  command->add_option("-o,--output", flags->output, "Where O goes: .npy or .safetensors");
  command->add_option("--lse", flags->lse, "Where LSE goes; the same .safetensors as --output holds both");
  command->add_option("--output-dtype", flags->output_dtype, "Type of O [that of the query; float32 for float8]");
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: the library's default")->check(CLI::Range(0, 4096));
  command->add_option("--repeat", flags->repeat, "Calls to take the median of")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_flag("--verify", flags->verify, "Compare with the float64 reference; exit status 1 if it is off");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace strobe::tools
