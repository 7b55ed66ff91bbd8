#include "terminal.hpp"

#include "numbers.hpp"
#include <nibble/base/concat.hpp>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace nib::program {
namespace {

constexpr std::chrono::milliseconds kNoticed{300};  // shorter work shows no progress
constexpr std::chrono::milliseconds kBetweenDraws{100};

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value && *value;
}

}  // namespace

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

int columns(int descriptor) {
  winsize size = {};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

Style style_for(int descriptor) {
  const char* kind = std::getenv("TERM");
  if (!is_terminal(descriptor) || is_set("NO_COLOR") || !kind || std::string_view(kind) == "dumb") return {};
  return {"\033[2m", "\033[1m", "\033[0m"};
}

Status write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return Status(Code::io, concat(descriptor == kStdout ? "standard output" : "standard error",
                                     ": cannot be written (", std::strerror(errno), ")"));
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Status put(std::string_view text) { return write_all(kStdout, text); }

void say(std::string_view text) { static_cast<void>(write_all(kStderr, text)); }

void occupy_standard_streams() {
  for (const int descriptor : {kStdin, kStdout, kStderr})
    if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF) {
      // open() takes the lowest free number, which is this one.
      if (open("/dev/null", O_RDWR) < 0) return;
    }
}

ProgressLine::ProgressLine() : enabled_(is_terminal(kStderr)) {}

void ProgressLine::show(std::string_view text) {
  if (!enabled_) return;
  const auto room = static_cast<std::size_t>(columns(kStderr) - 1);
  const Style style = style_for(kStderr);
  say(concat("\r", style.dim, text.substr(0, room), style.plain, "\033[K"));
  drawn_ = true;
}

void ProgressLine::clear() {
  if (drawn_) say("\r\033[K");
  drawn_ = false;
}

int ProgressLine::on_progress(void* user, const Progress& progress) {
  auto& line = *static_cast<ProgressLine*>(user);
  if (!line.enabled_) return 0;
  const auto now = Clock::now();
  if (line.stage_ != static_cast<int>(progress.stage)) {
    line.stage_ = static_cast<int>(progress.stage);
    line.started_ = now;
    line.started_at_ = progress.done;
  }
  if (now - line.started_ < kNoticed || now - line.last_drawn_ < kBetweenDraws) return 0;
  line.last_drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - line.started_).count();
  line.show(progress_text(progress, progress.done - line.started_at_, seconds));
  return 0;
}

std::string progress_text(const Progress& progress, std::uint64_t done_in_time, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(done_in_time) / seconds : 0;
  std::string text;
  if (progress.stage == Stage::prefill)
    text = concat("reading the ", progress.name.empty() ? "prompt" : progress.name, "  ", progress.done,
                  " of ", progress.total, " tokens, ", number_text(rate), " tokens/s");
  else
    text = concat(progress.stage == Stage::quantize ? "quantizing  " : "loading  ", bytes_text(progress.done),
                  " of ", bytes_text(progress.total), ", ", byte_rate_text(rate));
  if (rate > 0 && progress.done <= progress.total)
    text += concat(", ", duration_text(static_cast<double>(progress.total - progress.done) / rate), " left");
  return text;
}

}  // namespace nib::program
