// Texts that are given to the program: files, or standard input.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>

#include <cstdint>
#include <string>

namespace nib::program {

// The whole of a file, or of standard input for "-". Errors: those of opening and reading, argument (more
// than `most_bytes` on standard input), stopped (cancelled while standard input was read).
Result<std::string> read_input(const std::string& path, std::uint64_t most_bytes,
                               const Cancel* cancel = nullptr);

}  // namespace nib::program
