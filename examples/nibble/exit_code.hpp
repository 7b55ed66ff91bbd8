// What the program answers to the shell, and how it says what went wrong.
#pragma once

#include <nibble/base/status.hpp>

#include <string_view>

namespace nib::program {

// Part of what the command line promises (`nibble --help` lists them); never renumbered.
enum ExitCode : int {
  kSuccess = 0,
  kFailure = 1,
  kUsage = 2,
  kNotFound = 3,
  kBadModel = 4,
  kDoesNotFit = 5,
  kUnsupported = 6,
  kInterrupted = 130,
};

ExitCode exit_code(Code code);

// Prints "nibble: sentence" and, where there is something to do about it, a second line with `advice`, to
// stderr. Returns the exit code. An interrupt needs no sentence: whoever pressed the keys knows.
int fail(const Status& status, std::string_view advice = {});

}  // namespace nib::program
