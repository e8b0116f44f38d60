// One line of shell to one exit status: parsing, running, and every kind of error on stderr.
#include "command.hpp"

#include <fmt/format.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <new>

#include "strobe/strobe.hpp"

namespace strobe::tools {

ExitStatus run_command_line(int argc, const char* const* argv) {
  CLI::App app("Exact attention by tiles: run it on files, check it, measure it, explain it.", "strobe");
  app.require_subcommand(1);
  app.set_version_flag("--version", version());
  app.failure_message(CLI::FailureMessage::simple);
  Action action;
  add_attend(app, action);
  add_check(app, action);
  add_bench(app, action);
  add_plan(app, action);
  add_info(app, action);
  add_cache(app, action);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kSucceeded : kUsage;
  }
  const std::string name = "strobe " + app.get_subcommands().front()->get_name();
  try {
    return action();
  } catch (const UsageError& error) {
    fmt::print(stderr, "{}: {}\nRun with --help for more information.\n", name, error.what());
    return kUsage;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "{}: not enough memory\n", name);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
  }
  return kFailed;
}

}  // namespace strobe::tools
