// strobe check: every kernel and instruction set of this machine, or every kernel on a GPU, against float64.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "basic_cases.hpp"
#include "cases/cuda.hpp"
#include "cases/generate.hpp"
#include "cases/verify.hpp"
#include "command.hpp"
#include "cuda/cuda.hpp"
#include "device_flag.hpp"
#include "options.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

struct CheckFlags {
  std::int64_t random = -1;
  std::uint64_t seed = 1;
  std::vector<std::string> cases;
  std::string kernel, device = "cpu", shard;
  int threads = 0;
  bool json = false, details = false, tight = false;
};

constexpr std::int64_t kDefaultRandomCases = 100;

struct Tally {
  std::int64_t cases = 0, failed = 0;
  double worst = 0;  // largest error as a fraction of what is allowed
};

struct Failure {
  std::string kernel, what, line;
};

/// One case on one kernel.
struct Detail {
  std::string kernel, line;
  std::vector<cases::Measure> measures;
  bool passed;
};

struct Summary {
  std::map<std::string, Tally> kernels;
  std::map<std::string, std::int64_t> unserved;  // why no kernel of the device ran, and how many cases
  std::vector<Failure> failures;
  std::vector<Detail> details;
};

/// "2/16": every 16th line, from the third on. Processes with a shard each check side by side.
std::vector<std::string> shard_of(std::vector<std::string> lines, const std::string& shard) {
  if (shard.empty()) return lines;
  std::size_t index = 0, shards = 0;
  if (std::sscanf(shard.c_str(), "%zu/%zu", &index, &shards) != 2 || index >= shards) {
    throw UsageError("--shard is '" + shard + "', must be INDEX/SHARDS, for example 0/16");
  }
  std::vector<std::string> chosen;
  for (std::size_t i = index; i < lines.size(); i += shards) chosen.push_back(std::move(lines[i]));
  return chosen;
}

std::vector<std::string> chosen_cases(const CheckFlags& flags) {
  for (const std::string& line : flags.cases) {
    try {
      cases::parse_case(line);
    } catch (const Error& error) {
      throw UsageError(std::string("--case: ") + error.what());
    }
  }
  std::vector<std::string> lines = flags.cases;
  const bool everything = flags.cases.empty() && flags.random < 0;
  if (everything) lines = basic_cases();
  const std::int64_t random = everything ? kDefaultRandomCases : std::max<std::int64_t>(flags.random, 0);
  for (std::int64_t i = 0; i < random; ++i) {
    lines.push_back(cases::print_case(cases::random_case(flags.seed + std::uint64_t(i))));
  }
  return shard_of(std::move(lines), flags.shard);
}

/// Judges one run of a kernel, which left its results in the instance.
void tally(cases::Judge& judge, const char* kernel, const std::string& complaint, const std::string& line,
           Summary& summary) {
  cases::Verdict verdict = judge.judge();
  if (!complaint.empty()) verdict.failures.push_back(complaint);
  summary.details.push_back({kernel, line, verdict.measures, verdict.passed()});
  Tally& tally = summary.kernels[kernel];
  ++tally.cases;
  for (const cases::Measure& measure : verdict.measures) {
    if (measure.allowed > 0) tally.worst = std::max(tally.worst, measure.error / measure.allowed);
  }
  if (verdict.passed()) return;
  ++tally.failed;
  summary.failures.push_back({kernel, fmt::format("{}", fmt::join(verdict.failures, "; ")), line});
}

bool wanted(const char* kernel, const CheckFlags& flags) {
  return std::string_view(kernel).find(flags.kernel) != std::string_view::npos;
}

/// The case on every kernel that some instruction set of this machine would choose for it.
void run_on_cpu(cases::Instance& instance, const CheckFlags& flags, Executor& executor, const std::string& line,
                Summary& summary) {
  std::vector<plan::Choice> choices;
  for (const Isa isa : cases::instruction_sets()) {
    const plan::Choice choice = cases::choose(instance, isa, executor);
    const bool seen = !choices.empty() && choices.back().kernel == choice.kernel;
    if (wanted(choice.kernel->name, flags) && !seen) choices.push_back(choice);
  }
  if (choices.empty()) return;
  cases::Judge judge(instance);
  for (const plan::Choice& choice : choices) {
    reset(instance);
    const std::string complaint = cases::run(instance, choice.decision, executor);
    tally(judge, choice.kernel->name, complaint, line, summary);
  }
}

/// The case on every kernel of the manifest that serves it on the GPU. A case that none serves is counted, not failed.
void run_on_gpu(cases::Instance& instance, const CheckFlags& flags, cuda::Stream stream, const std::string& line,
                Summary& summary) {
  const CudaDevice& device = cuda::device(stream.device);
  std::vector<plan::CudaChoice> choices = plan::candidates(instance.checked.problem, device);
  if (choices.empty()) {
    try {
      plan::choose(instance.checked.problem, device);
    } catch (const Error& error) {
      ++summary.unserved[error.must_be()];
    }
  }
  std::erase_if(choices, [&](const plan::CudaChoice& choice) { return !wanted(choice.kernel->name, flags); });
  if (choices.empty()) return;
  cases::Judge judge(instance);
  for (const plan::CudaChoice& choice : choices) {
    reset(instance);
    const std::string complaint = cases::run_on_cuda(instance, choice.decision, stream,
                                                     flags.tight ? cases::Room::kTight : cases::Room::kGuarded);
    tally(judge, choice.kernel->name, complaint, line, summary);
  }
}

/// Runs one line with `run(instance)`. Returns whether the device is still good for another.
template <typename Run>
bool run_case(const std::string& line, Summary& summary, const Run& run) {
  try {
    run(*cases::build(cases::parse_case(line)));
  } catch (const std::exception& error) {
    summary.failures.push_back({"(none)", error.what(), line});
    const auto* of_library = dynamic_cast<const Error*>(&error);
    return of_library == nullptr || of_library->code() != ErrorCode::kInternal;
  }
  return true;
}

void print_failure(const Failure& failure) {
  fmt::print("FAILED {}: {}\n  strobe check --case \"{}\"\n", failure.kernel, failure.what, failure.line);
}

void print_summary(const Summary& summary, std::size_t lines) {
  fmt::print("{:28} {:>8} {:>8} {:>26}\n", "kernel", "cases", "failed", "largest error / allowed");
  for (const auto& [name, tally] : summary.kernels) {
    fmt::print("{:28} {:8} {:8} {:26.3f}\n", name, tally.cases, tally.failed, tally.worst);
  }
  for (const auto& [why, count] : summary.unserved) fmt::print("{} cases did not run: must be {}\n", count, why);
  fmt::print("{} cases: {}\n", lines,
             summary.failures.empty() ? "all passed" : fmt::format("{} failures", summary.failures.size()));
}

ordered_json json_of(const Summary& summary, std::size_t lines) {
  ordered_json result = {{"cases", lines}, {"passed", summary.failures.empty()}};
  result["kernels"] = ordered_json::array();
  for (const auto& [name, tally] : summary.kernels) {
    result["kernels"].push_back(
        {{"kernel", name}, {"cases", tally.cases}, {"failed", tally.failed}, {"worst", tally.worst}});
  }
  if (!summary.unserved.empty()) result["unserved"] = summary.unserved;
  result["failures"] = ordered_json::array();
  for (const Failure& failure : summary.failures) {
    result["failures"].push_back({{"kernel", failure.kernel}, {"what", failure.what}, {"case", failure.line}});
  }
  return result;
}

/// Every case with its errors, a kernel at a time.
ordered_json json_of(const std::vector<Detail>& details) {
  ordered_json result = ordered_json::array();
  for (const Detail& detail : details) {
    ordered_json row = {{"case", detail.line}, {"kernel", detail.kernel}, {"passed", detail.passed}};
    for (const cases::Measure& measure : detail.measures) {
      row[measure.name] = {{"error", measure.error}, {"allowed", measure.allowed}};
    }
    result.push_back(std::move(row));
  }
  return result;
}

ExitStatus run(const CheckFlags& flags) {
  const Device device = parse_device(flags.device);
  const Threads threads(flags.threads);
  const std::vector<std::string> lines = chosen_cases(flags);
  std::optional<cuda::OwnStream> stream;
  if (device.kind == DeviceKind::kCuda) stream.emplace(device.index);
  const bool terminal = isatty(STDERR_FILENO);
  Summary summary;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (terminal) fmt::print(stderr, "\r\x1b[K{}/{} {:.100}\r", i + 1, lines.size(), lines[i]);
    const std::size_t before = summary.failures.size();
    const bool usable = run_case(lines[i], summary, [&](cases::Instance& instance) {
      if (stream) return run_on_gpu(instance, flags, stream->get(), lines[i], summary);
      run_on_cpu(instance, flags, *threads.executor(), lines[i], summary);
    });
    if (!flags.json) {
      for (std::size_t f = before; f < summary.failures.size(); ++f) print_failure(summary.failures[f]);
    }
    // After a kernel's bad access nothing runs on the GPU in this process any more.
    if (stream && !usable) break;
  }
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (flags.json) {
    ordered_json result = json_of(summary, lines.size());
    if (flags.details) result["results"] = json_of(summary.details);
    fmt::print("{}\n", result.dump(2));
  } else {
    print_summary(summary, lines.size());
  }
  if (summary.kernels.empty() && summary.failures.empty() && summary.unserved.empty() && !lines.empty()) {
    throw UsageError("no kernel that these cases run on has '" + flags.kernel + "' in its name");
  }
  return summary.failures.empty() ? kSucceeded : kFailed;
}

}  // namespace

void add_check(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("check", "Every kernel and instruction set of this machine against float64");
  auto flags = std::make_shared<CheckFlags>();
  command->add_option("--random", flags->random, "This many random cases instead of the default set")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seed", flags->seed, "Seed of the first random case")->capture_default_str();
  command->add_option("--case", flags->cases, "A case to run, as a failure prints it; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--shard", flags->shard, "INDEX/SHARDS: every SHARDS-th case only, for processes side by side");
  command->add_option("--kernel", flags->kernel, "Only kernels with this in their name, for example backward.avx2");
  command->add_option("--device", flags->device, "cpu, or cuda (cuda:N): every kernel on that GPU")
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "0: the library's default")->check(CLI::Range(0, 4096));
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->add_flag("--details", flags->details, "With --json: every case with its errors");
  command->add_flag("--tight", flags->tight, "On CUDA: no guards around tensors, so that a memory checker sees all");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace strobe::tools
