// strobe check
#include "command.hpp"
namespace strobe::tools {
void add_check(CLI::App&, Action&) {}
}  // namespace strobe::tools
