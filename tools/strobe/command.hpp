// The subcommands. Each declares its flags on the application and, once they are parsed, leaves what to do in `action`.
#pragma once

#include <functional>

#include "errors.hpp"

namespace CLI {
class App;
}

namespace strobe::tools {

using Action = std::function<ExitStatus()>;

void add_attend(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_cache(CLI::App& app, Action& action);
void add_check(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);

/// Parses, runs and reports: everything that main does.
ExitStatus run_command_line(int argc, const char* const* argv);

}  // namespace strobe::tools
