// strobe bench: cases timed in turn with the peaks of the machine that they are measured against.
#include <fmt/format.h>

#include <algorithm>

#include "bench/cuda.hpp"
#include "bench/pinning.hpp"
#include "bench/presets.hpp"
#include "command.hpp"
#include "device_flag.hpp"
#include "measure.hpp"

namespace strobe::tools {
namespace {

struct BenchFlags {
  std::string preset, filter, kernel, json, device = "cpu";
  std::vector<std::int64_t> lengths, dims, query_lengths;
  std::vector<std::string> dtypes = {"float32"}, passes = {"forward"};
  std::string causal = "both", isa;
  std::int64_t batch = 1, heads = 16, kv_heads = 0;
  int threads = 0, rounds = 0;
};

constexpr double kRoundSeconds = 0.02;  // short calls are repeated until a round takes this long

/// Calls until a round is long enough; the time of one.
double time_round(BenchProblem& problem, int calls) {
  return seconds([&] {
           for (int i = 0; i < calls; ++i) problem.run();
         }) /
         calls;
}

int rounds_for(double round_seconds) {
  constexpr double kBudgetSeconds = 2.5;
  return std::clamp(int(kBudgetSeconds / std::max(round_seconds, 1e-3)), 3, 15);
}

/// Peak, case, peak, case, ..., peak: each round of the case is set against the two peaks around it.
Row measure_case(const BenchCase& row, Executor& executor, int rounds) {
  BenchProblem problem(row, executor);
  Row result;
  result.kernel = problem.kernel();
  const Peak peak = problem.peak();
  result.memory_bound = peak.kind == PeakKind::kRead;
  result.peak_name = name_of(peak.kind);
  problem.run();
  const double once = seconds([&] { problem.run(); });
  const int calls = std::clamp(int(kRoundSeconds / std::max(once, 1e-7)), 1, 1000000);
  if (rounds == 0) rounds = rounds_for(once * calls);
  const double work = result.memory_bound ? problem.bytes() : problem.flops();
  const int threads = executor.concurrency();

  std::vector<double> times, peaks, fractions;
  double before = measure(peak, threads);
  for (int round = 0; round < rounds; ++round) {
    const double time = time_round(problem, calls);
    const double after = measure(peak, threads);
    times.push_back(time);
    peaks.push_back((before + after) / 2);
    fractions.push_back(work / time / 1e9 / peaks.back());
    before = after;
  }
  result.ms = median(times) * 1e3;
  result.spread = spread(times);
  result.rate = work / median(times) / 1e9;
  result.peak = median(peaks);
  result.fraction = median(fractions);
  return result;
}

bool wanted(const BenchFlags& flags, const std::string& name) { return name.find(flags.filter) != std::string::npos; }

void bench_scaling(const BenchFlags& flags, Output& output) {
  const char* name = "2 threads against 1, float32 d64 N4096 full";
  if (!wanted(flags, name)) return;
  progress(name);
  const auto one = make_thread_pool(1), two = make_thread_pool(2);
  pin_threads(*two);
  const BenchCase row{.name = name, .head_dim = 64, .value_dim = 64};
  BenchProblem alone(row, *one), together(row, *two);
  alone.run();
  together.run();
  std::vector<double> ratios;
  for (int round = 0; round < 5; ++round) ratios.push_back(time_round(alone, 1) / time_round(together, 1));
  output.figure(name, median(ratios), "x", 1.9, true);
}

/// Microseconds of one call, the median over batches of calls.
template <typename Call>
double microseconds(const Call& call) {
  constexpr int kBatches = 25, kCalls = 200;
  for (int i = 0; i < kCalls; ++i) call();
  std::vector<double> times;
  for (int batch = 0; batch < kBatches; ++batch) {
    times.push_back(seconds([&] {
                      for (int i = 0; i < kCalls; ++i) call();
                    }) /
                    kCalls * 1e6);
  }
  return median(times);
}

void bench_small_calls(const BenchFlags& flags, Output& output) {
  const auto one = make_thread_pool(1);
  const char* call_name = "call, 64 queries, 1 head, d64, 1 thread";
  if (wanted(flags, call_name)) {
    progress(call_name);
    BenchProblem problem({.name = call_name,
                          .query_heads = 1,
                          .kv_heads = 1,
                          .query_length = 64,
                          .key_length = 64,
                          .head_dim = 64,
                          .value_dim = 64},
                         *one);
    output.figure(call_name, microseconds([&] { problem.run(); }), "us", 15, false);
  }
  const char* plan_name = "plan, float32 d128 N4096 causal";
  if (wanted(flags, plan_name)) {
    progress(plan_name);
    const Tensor rows = Tensor::contiguous(nullptr, DataType::kFloat32, {1, 4096, 16, 128});
    const Attention attention{.query = rows, .key = rows, .value = rows, .causal = true};
    const ForwardOutputs outputs{.output = rows, .lse = {}};
    output.figure(plan_name, microseconds([&] { plan_forward(attention, outputs, {.executor = one.get()}); }), "us", 5,
                  false);
  }
}

std::vector<BenchCase> free_form(const BenchFlags& flags) {
  std::vector<BenchCase> rows;
  const auto or_default = [](const std::vector<std::int64_t>& values, std::int64_t otherwise) {
    return values.empty() ? std::vector<std::int64_t>{otherwise} : values;
  };
  for (const std::string& pass : flags.passes) {
    for (const std::string& dtype : flags.dtypes) {
      for (const std::int64_t dim : or_default(flags.dims, 64)) {
        for (const std::int64_t length : or_default(flags.lengths, 1024)) {
          for (const std::int64_t queries : or_default(flags.query_lengths, pass == "decode" ? 1 : length)) {
            for (const bool causal : {false, true}) {
              if (flags.causal == (causal ? "no" : "yes") || (pass == "decode" && causal)) continue;
              BenchCase row{.pass = pass,
                            .dtype = parse_float_type(dtype),
                            .batch = flags.batch,
                            .query_heads = flags.heads,
                            .kv_heads = flags.kv_heads > 0 ? flags.kv_heads : flags.heads,
                            .query_length = queries,
                            .key_length = length,
                            .head_dim = dim,
                            .value_dim = dim,
                            .causal = causal};
              for (int id = 0; id < kIsaCount; ++id) {
                if (flags.isa == strobe::name_of(Isa(id))) row.isa = Isa(id);
              }
              row.name = describe(row);
              rows.push_back(row);
            }
          }
        }
      }
    }
  }
  return rows;
}

ExitStatus run(BenchFlags flags, bool is_free_form) {
  const Device device = parse_device(flags.device);
  if (flags.preset.empty()) flags.preset = preset_names(device.kind).front();
  const std::vector<BenchCase> rows = is_free_form ? free_form(flags) : preset(flags.preset, device.kind);
  Output output(flags.json);
  if (device.kind == DeviceKind::kCuda) {
    bench_on_gpu(device.index, rows, flags.filter, flags.kernel, flags.rounds, output);
    return kSucceeded;
  }
  const Threads threads(flags.threads);
  pin_threads(*threads.executor());
  output.text("{} threads, pinned; each case between two measurements of its peak; medians\n\n", threads.count());
  output.heading();
  for (const BenchCase& row : rows) {
    if (!wanted(flags, row.name)) continue;
    progress(row.name);
    const Row result = measure_case(row, *threads.executor(), flags.rounds);
    output.row(row, result);
    output.line(json_of(row, result, "cpu", threads.count()));
  }
  if (!is_free_form && flags.preset == "cpu") {
    bench_scaling(flags, output);
    bench_small_calls(flags, output);
  }
  return kSucceeded;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("bench", "Speed against the machine's own peaks");
  auto flags = std::make_shared<BenchFlags>();
  const auto names = [](DeviceKind kind) { return fmt::format("{}", fmt::join(preset_names(kind), ", ")); };
  command->add_option("--preset", flags->preset,
                      fmt::format("A named set of cases: {}; on CUDA {} [the first]", names(DeviceKind::kCpu),
                                  names(DeviceKind::kCuda)));
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--filter", flags->filter, "Only the cases whose name contains this");
  command->add_option("--kernel", flags->kernel,
                      "On a GPU: take the kernel whose name contains this, not the planned one");
  command->add_option("--rounds", flags->rounds, "Rounds of each case; 0 chooses")->check(CLI::Range(0, 1000));
  command->add_option("--threads", flags->threads, "0: the library's default")->check(CLI::Range(0, 4096));
  command->add_option("--json", flags->json, "FILE: write one JSON object a line; nothing or -: to stdout, no table")
      ->expected(0, 1)
      ->default_str("-");
  const auto list = [&](const char* name, auto& values, const char* text) {
    return command->add_option(name, values, text)->delimiter(',')->group("Free form, instead of a preset");
  };
  const auto one = [&](const char* name, auto& value, const char* text) {
    return command->add_option(name, value, text)->group("Free form, instead of a preset");
  };
  const CLI::Range size(1, 1 << 24);
  const std::vector<CLI::Option*> free_form_options = {
      list("--lengths", flags->lengths, "Keys (and queries) of a sequence")->check(size),
      list("--query-lengths", flags->query_lengths, "Queries of a sequence, if not as many as keys")->check(size),
      list("--dims", flags->dims, "Head dimensions")->check(CLI::Range(1, 1024)),
      list("--dtype", flags->dtypes, "Types"),
      list("--pass", flags->passes, "forward, backward, decode")
          ->check(CLI::IsMember({"forward", "backward", "decode"})),
      one("--causal", flags->causal, "yes, no or both")->check(CLI::IsMember({"yes", "no", "both"})),
      one("--batch", flags->batch, "Sequences")->check(size),
      one("--heads", flags->heads, "Query heads")->check(size),
      one("--kv-heads", flags->kv_heads, "Key and value heads [as many as query heads]")->check(CLI::Range(0, 1 << 24)),
      one("--isa", flags->isa, "Limit the instruction set")
          ->check(CLI::IsMember({"sse4", "avx2", "avx512", "avx512_bf16", "amx_bf16"}))};
  command->callback([flags, free_form_options, command, &action] {
    const bool is_free_form = std::any_of(free_form_options.begin(), free_form_options.end(),
                                          [](CLI::Option* each) { return each->count() > 0; });
    if (is_free_form && command->count("--preset") > 0) {
      throw CLI::ValidationError("--preset", "cannot be combined with the options of a free-form case");
    }
    if (command->count("--kernel") > 0 && flags->device.starts_with("cpu")) {
      throw CLI::ValidationError("--kernel", "goes with --device cuda; on the CPU --isa limits the choice");
    }
    if (command->count("--json") > 0 && flags->json.empty()) flags->json = "-";
    action = [flags, is_free_form] { return run(*flags, is_free_form); };
  });
}

}  // namespace strobe::tools
