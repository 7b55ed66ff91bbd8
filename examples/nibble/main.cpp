// nibble: the command-line program. command_line.cpp says what may be typed; each verb has a file of its own.
#include "command_line.hpp"
#include "exit_code.hpp"
#include "terminal.hpp"

#include <csignal>
#include <exception>

int main(int count, char** arguments) {
  // Whoever reads us has had enough: end as every filter does, also under a parent that ignores the signal.
  std::signal(SIGPIPE, SIG_DFL);
  nib::program::occupy_standard_streams();
  try {
    return nib::program::command_line(count, arguments);
  } catch (const std::bad_alloc&) {
    return nib::program::fail({nib::Code::memory, "there is no memory left"});
  } catch (const std::exception& error) {
    return nib::program::fail({nib::Code::internal, error.what()});
  }
}
