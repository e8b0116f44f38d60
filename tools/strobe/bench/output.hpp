// What a benchmark reports: a table on the terminal, a JSON object a line in a file.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/case.hpp"
#include "errors.hpp"

namespace strobe::tools {

/// What was measured of one case.
struct Row {
  double ms = 0, spread = 0;
  double rate = 0, peak = 0, fraction = 0;  // GFLOP/s or GB/s; a peak of 0: not known
  bool memory_bound = false;                // the rate is GB/s
  std::string kernel, peak_name;
  // Of an option on a GPU: its time over the plain case's, bytes that it cannot do without taken off; and what share of
  // the plain case's tiles is visible.
  std::optional<double> times_plain;
  double share = 1, unavoidable_ms = 0;
  /// What BenchCase::bound bounds.
  double cost() const { return times_plain.value_or(0) / share; }
};

/// A table on the terminal and lines of JSON in a file, or only the lines on stdout.
class Output {
 public:
  explicit Output(const std::string& json) : to_stdout_(json == "-") {
    if (json.empty() || to_stdout_) return;
    file_.open(json);
    if (!file_) throw FileError(json, "the file", "not writable", "writable");
  }
  template <typename... Arguments>
  void text(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    if (to_stdout_) return;
    fmt::print(format, std::forward<Arguments>(arguments)...);
    std::fflush(stdout);
  }
  void line(const nlohmann::ordered_json& object) {
    if (to_stdout_) std::cout << object.dump() << std::endl;
    if (file_.is_open()) file_ << object.dump() << std::endl;
  }
  /// The table's heading and a row of it.
  void heading();
  void row(const BenchCase& row, const Row& result);
  /// A figure that is no fraction of a peak: its value, and the bound that it should keep.
  void figure(const char* name, double value, const char* unit, double bound, bool at_least);

 private:
  bool to_stdout_;
  std::ofstream file_;
};

/// The fields that docs/cli.md lists. `threads` is 0 on a GPU.
nlohmann::ordered_json json_of(const BenchCase& row, const Row& result, const char* backend, int threads);

/// Names what is being measured, on a terminal only.
void progress(const std::string& name);

}  // namespace strobe::tools
