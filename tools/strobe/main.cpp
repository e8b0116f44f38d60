// The strobe program.
#include "command.hpp"

int main(int argc, char** argv) { return strobe::tools::run_command_line(argc, argv); }
