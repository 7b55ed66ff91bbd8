// The command line: what may be typed, and its help. The only place that knows CLI11.
#pragma once

namespace nib::program {

// Parses and runs; returns the exit code.
int command_line(int count, const char* const* arguments);

}  // namespace nib::program
