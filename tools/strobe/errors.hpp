// What can go wrong before the library is called: a command line that makes no sense (exit status 2) and a file that
// is not what it should be (exit status 1). Errors of the library itself are strobe::Error.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace strobe::tools {

enum ExitStatus : int { kSucceeded = 0, kFailed = 1, kUsage = 2 };

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// "<file>: <where> is <found>, must be <expected>".
struct FileError : std::runtime_error {
  FileError(const std::string& file, const std::string& where, const std::string& found, const std::string& expected)
      : std::runtime_error(file + ": " + where + " is " + found + ", must be " + expected) {}
};

/// Text from a file made safe to print: control characters and bytes outside ASCII become \xNN, and long text is cut.
std::string printable(std::string_view text);

}  // namespace strobe::tools
