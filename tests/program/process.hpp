// The built program as a process: with pipes, or with a terminal of its own.
#pragma once

#include <nibble/base/json.hpp>

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace nib::test {

using Environment = std::vector<std::pair<std::string, std::string>>;

struct Finished {
  int code = -1;   // exit code; -1 when a signal ended it
  int signal = 0;  // that signal
  std::string out, err;
};

struct Call {
  std::vector<std::string> arguments;
  std::string input{};  // of stdin, which is then closed
  Environment
      environment{};  // added; none of the caller's NIBBLE_*, HF_*, XDG_* and colour settings is passed on
  std::string out_path{};    // stdout goes to this file instead
  bool reader_gone = false;  // nobody reads stdout
  int interrupt_after = 0;   // SIGINT is sent once stdout has this many bytes; 0: never
};

// Runs the program to its end; a test fails when that takes minutes.
Finished call(const Call& what);
inline Finished nibble(std::vector<std::string> arguments, std::string input = "") {
  return call({.arguments = std::move(arguments), .input = std::move(input)});
}

// The JSON object that a verb prints with --json; a test fails where it does not end well, or says anything
// else.
Json json_report(std::vector<std::string> arguments, std::string input = "");

// First line of a test on a terminal: leaves it, saying so, where the system has no pseudo-terminals (a bare
// chroot).
bool has_terminals();
#define NIB_REQUIRE_TERMINAL()                               \
  if (!::nib::test::has_terminals()) {                       \
    MESSAGE("skipped: this system has no pseudo-terminals"); \
    return;                                                  \
  }

// The program with a terminal of 100 columns as all three streams.
class OnTerminal {
 public:
  explicit OnTerminal(std::vector<std::string> arguments, const Environment& environment = {});
  ~OnTerminal();

  void type(std::string_view keys);
  // Waits until the output since the last match contains `text`; false when it does not come or the program
  // has ended.
  bool wait_for(std::string_view text);
  // Everything shown so far.
  const std::string& shown() const { return shown_; }
  // Waits for the end; exit code, or -1.
  int finish();
  // Ctrl-D on an empty line until that ends it: libedit shows its prompt a moment before it takes the
  // terminal over, and what falls between is lost or taken for text. Exit code, or -1.
  int leave();

 private:
  bool receive(int milliseconds);

  pid_t child_ = -1;
  int terminal_ = -1;
  std::string shown_;
  std::size_t matched_ = 0;
};

// A folder that goes away with the test.
class Folder {
 public:
  Folder();
  ~Folder();
  const std::filesystem::path& path() const { return path_; }
  // Writes a file, and the folders it lies in; returns its path.
  static std::string write(const std::filesystem::path& folder, const std::string& name,
                           std::string_view content);
  std::string write(const std::string& name, std::string_view content) const {
    return write(path_, name, content);
  }

 private:
  std::filesystem::path path_;
};

inline constexpr const char* kCtrlC = "\x03";
inline constexpr const char* kCtrlD = "\x04";
inline constexpr const char* kCtrlU = "\x15";  // forgets the line

}  // namespace nib::test
