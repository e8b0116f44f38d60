// strobe check: every kernel and instruction set of this machine against float64.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "basic_cases.hpp"
#include "cases/generate.hpp"
#include "cases/verify.hpp"
#include "command.hpp"
#include "options.hpp"

namespace strobe::tools {
namespace {

using nlohmann::ordered_json;

struct CheckFlags {
  std::int64_t random = -1;
  std::uint64_t seed = 1;
  std::vector<std::string> cases;
  std::string kernel;
  int threads = 0;
  bool json = false;
};

constexpr std::int64_t kDefaultRandomCases = 100;

struct Tally {
  std::int64_t cases = 0, failed = 0;
  double worst = 0;  // largest error as a fraction of what is allowed
};

struct Failure {
  std::string kernel, what, line;
};

struct Summary {
  std::map<std::string, Tally> kernels;
  std::vector<Failure> failures;
};

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
  return lines;
}

void run_kernel(cases::Instance& instance, cases::Judge& judge, const plan::Choice& choice, Executor& executor,
                const std::string& line, Summary& summary) {
  reset(instance);
  const std::string complaint = cases::run(instance, choice.decision, executor);
  cases::Verdict verdict = judge.judge();
  if (!complaint.empty()) verdict.failures.push_back(complaint);
  Tally& tally = summary.kernels[choice.kernel->name];
  ++tally.cases;
  for (const cases::Measure& measure : verdict.measures) {
    if (measure.allowed > 0) tally.worst = std::max(tally.worst, measure.error / measure.allowed);
  }
  if (verdict.passed()) return;
  ++tally.failed;
  summary.failures.push_back({choice.kernel->name, fmt::format("{}", fmt::join(verdict.failures, "; ")), line});
}

/// The case on every kernel that some instruction set of this machine would choose for it.
void run_case(const std::string& line, const CheckFlags& flags, Executor& executor, Summary& summary) {
  try {
    const auto instance = cases::build(cases::parse_case(line));
    std::vector<plan::Choice> choices;
    for (const Isa isa : cases::instruction_sets()) {
      const plan::Choice choice = cases::choose(*instance, isa, executor);
      const bool wanted = std::string(choice.kernel->name).find(flags.kernel) != std::string::npos;
      const bool seen = !choices.empty() && choices.back().kernel == choice.kernel;
      if (wanted && !seen) choices.push_back(choice);
    }
    if (choices.empty()) return;
    cases::Judge judge(*instance);
    for (const plan::Choice& choice : choices) run_kernel(*instance, judge, choice, executor, line, summary);
  } catch (const std::exception& error) {
    summary.failures.push_back({"(none)", error.what(), line});
  }
}

void print_failure(const Failure& failure) {
  fmt::print("FAILED {}: {}\n  strobe check --case \"{}\"\n", failure.kernel, failure.what, failure.line);
}

void print_summary(const Summary& summary, std::size_t lines) {
  fmt::print("{:28} {:>8} {:>8} {:>26}\n", "kernel", "cases", "failed", "largest error / allowed");
  for (const auto& [name, tally] : summary.kernels) {
    fmt::print("{:28} {:8} {:8} {:26.3f}\n", name, tally.cases, tally.failed, tally.worst);
  }
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
  result["failures"] = ordered_json::array();
  for (const Failure& failure : summary.failures) {
    result["failures"].push_back({{"kernel", failure.kernel}, {"what", failure.what}, {"case", failure.line}});
  }
  return result;
}

ExitStatus run(const CheckFlags& flags) {
  const Threads threads(flags.threads);
  const std::vector<std::string> lines = chosen_cases(flags);
  const bool terminal = isatty(STDERR_FILENO);
  Summary summary;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (terminal) fmt::print(stderr, "\r\x1b[K{}/{} {:.100}\r", i + 1, lines.size(), lines[i]);
    const std::size_t before = summary.failures.size();
    run_case(lines[i], flags, *threads.executor(), summary);
    if (flags.json) continue;
    for (std::size_t f = before; f < summary.failures.size(); ++f) print_failure(summary.failures[f]);
  }
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (flags.json) {
    fmt::print("{}\n", json_of(summary, lines.size()).dump(2));
  } else {
    print_summary(summary, lines.size());
  }
  if (summary.kernels.empty() && summary.failures.empty()) {
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
  command->add_option("--kernel", flags->kernel, "Only kernels with this in their name, for example backward.avx2");
  command->add_option("--threads", flags->threads, "0: the library's default")->check(CLI::Range(0, 4096));
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace strobe::tools
