#include "exit_code.hpp"

#include "terminal.hpp"
#include <nibble/base/concat.hpp>

namespace nib::program {

ExitCode exit_code(Code code) {
  switch (code) {
    case Code::ok:
    case Code::end:
      return kSuccess;
    case Code::stopped:
      return kInterrupted;
    case Code::argument:
      return kUsage;
    case Code::not_found:
      return kNotFound;
    case Code::format:
      return kBadModel;
    case Code::memory:
    case Code::budget:
    case Code::device_memory:
    case Code::context_full:
      return kDoesNotFit;
    case Code::unsupported:
      return kUnsupported;
    case Code::io:
    case Code::state:
    case Code::version:
    case Code::busy:
    case Code::device:
    case Code::small_buffer:
    case Code::internal:
      return kFailure;
  }
  return kFailure;
}

int fail(const Status& status, std::string_view advice) {
  if (status.code() != Code::stopped) {
    const Style style = style_for(kStderr);
    say(concat(style.bold, "nibble:", style.plain, " ", status.message(), "\n"));
    if (!advice.empty()) say(concat("        ", advice, "\n"));
  }
  return exit_code(status.code());
}

}  // namespace nib::program
