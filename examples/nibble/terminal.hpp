// Where output goes: text for the user on stdout, everything about it on stderr; colour, progress and width
// only where a person is looking. The program writes through these functions alone.
#pragma once

#include <nibble/base/cancel.hpp>
#include <nibble/base/status.hpp>

#include <chrono>
#include <string>
#include <string_view>

namespace nib::program {

inline constexpr int kStdin = 0, kStdout = 1, kStderr = 2;

bool is_terminal(int descriptor);
// Columns of the terminal; 80 when nobody knows.
int columns(int descriptor);

// Escape sequences; all empty where there is no colour (no terminal, NO_COLOR, TERM=dumb).
struct Style {
  std::string_view dim, bold, plain;
};
Style style_for(int descriptor);

// Everything or an error: io, naming the stream and the system's reason.
Status write_all(int descriptor, std::string_view text);
// To stdout.
Status put(std::string_view text);
// To stderr; what cannot be said is not worth failing for.
void say(std::string_view text);

// Opens /dev/null for each of the three streams that the caller closed, so that no file of ours gets their
// number.
void occupy_standard_streams();

// One line on stderr that is drawn over again, about work that takes longer than a moment. Silent unless
// stderr is a terminal. Cleared when it goes out of scope.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // For loading and prefill: what is done, how fast, and how long it will still take.
  ProgressSink sink() { return {&ProgressLine::on_progress, this}; }
  // Any text, at once.
  void show(std::string_view text);
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  static int on_progress(void* user, const Progress& progress);

  bool enabled_;
  bool drawn_ = false;
  Clock::time_point started_ = Clock::now();
  Clock::time_point last_drawn_{};
  std::uint64_t started_at_ = 0;  // `done` when this stage began
  int stage_ = -1;
};

// The line itself: "loading  6.2 GiB of 12.8 GiB, 1.9 GB/s, 4 s left". `done_in_time` was done in `seconds`.
std::string progress_text(const Progress& progress, std::uint64_t done_in_time, double seconds);

}  // namespace nib::program
