// See output.hpp.
#include "bench/output.hpp"

#include <unistd.h>

namespace strobe::tools {

using nlohmann::ordered_json;

void Output::heading() {
  text("{:44} {:>10} {:>7} {:>12} {:>19} {:>8} {:>7}\n", "case", "ms", "spread", "rate", "peak", "of peak", "target");
}

void Output::row(const BenchCase& row, const Row& result) {
  const char* unit = result.memory_bound ? "GB/s" : "GF/s";
  const std::string peak = result.peak > 0
                               ? fmt::format("{:5.0f} {:>13} {:8.3f}", result.peak, result.peak_name, result.fraction)
                               : fmt::format("{:28}", "");
  const std::optional<double> target = row.target ? row.target : row.bound;
  const bool met = row.target ? result.fraction >= *row.target : result.cost() <= row.bound.value_or(0);
  std::string middle = peak;
  if (result.times_plain) {
    const std::string share =
        result.share < 1 ? fmt::format(", {:.2f} x its {:.1f}%", result.cost(), result.share * 100) : std::string();
    middle = fmt::format("{:28}", fmt::format("{:.3f} x plain{}", *result.times_plain, share));
  }
  text("{:44} {:10.3f} {:6.1f}% {:7.0f} {} {} {:>7}{}\n", row.name, result.ms, result.spread * 100, result.rate, unit,
       middle, target ? fmt::format("{:.2f}", *target) : "",
       !target ? ""
       : met   ? "  met"
               : "  MISSED");
}

void Output::figure(const char* name, double value, const char* unit, double bound, bool at_least) {
  const bool met = at_least ? value >= bound : value <= bound;
  text("{:44} {:10.3f} {:8}   {} {:.4g}  {}\n", name, value, unit, at_least ? "at least" : "at most", bound,
       met ? "met" : "MISSED");
  line({{"case", name}, {"value", value}, {"unit", unit}, {"target", bound}, {"met", met}});
}

ordered_json json_of(const BenchCase& row, const Row& result, const char* backend, int threads) {
  const auto only = [](bool given, double value) { return given ? ordered_json(value) : ordered_json(nullptr); };
  ordered_json line = {{"case", row.name},
                       {"backend", backend},
                       {"kernel", result.kernel},
                       {"pass", row.pass},
                       {"dtype", strobe::name_of(row.dtype)},
                       {"head_dim", row.head_dim},
                       {"value_dim", row.value_dim},
                       {"batch", row.batch},
                       {"query_heads", row.query_heads},
                       {"kv_heads", row.kv_heads},
                       {"query_length", row.query_length},
                       {"key_length", row.key_length},
                       {"causal", row.causal},
                       {"option", row.option},
                       {"round", row.round},
                       {"threads", threads},
                       {"ms", result.ms},
                       {"spread", result.spread},
                       {"tflops", only(!result.memory_bound, result.rate / 1e3)},
                       {"gbps", only(result.memory_bound, result.rate)},
                       {"peak", only(result.peak > 0, result.peak)},
                       {"peak_fraction", only(result.peak > 0, result.fraction)},
                       {"peak_kind", result.peak_name}};
  line["target"] = only(row.target.has_value(), row.target.value_or(0));
  line["met"] = row.target ? ordered_json(result.fraction >= *row.target) : ordered_json(nullptr);
  if (result.times_plain) {
    line["times_plain"] = *result.times_plain;
    line["share"] = result.share;
    line["times_share"] = result.cost();
    line["bound"] = only(row.bound.has_value(), row.bound.value_or(0));
    if (row.bound) line["met"] = result.cost() <= *row.bound;
  }
  return line;
}

void progress(const std::string& name) {
  if (isatty(STDERR_FILENO)) fmt::print(stderr, "\r\x1b[K{}\r", name);
}

}  // namespace strobe::tools
