#include "process.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nib::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{60};

bool passed_on(std::string_view setting) {
  for (const std::string_view mine : {"NIBBLE_", "HF_", "XDG_", "NO_COLOR=", "TERM=", "HOME="})
    if (setting.starts_with(mine)) return false;
  return true;
}

std::vector<std::string> settings(const Environment& added) {
  std::vector<std::string> all;
  for (char** setting = environ; *setting; ++setting)
    if (passed_on(*setting)) all.push_back(*setting);
  all.push_back("TERM=xterm");
  for (const auto& [name, value] : added) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  for (std::string& text : texts) all.push_back(text.data());
  all.push_back(nullptr);
  return all;
}

// In the child: nothing but calls that are safe after a fork.
struct Image {
  std::vector<std::string> words, environment;
  std::vector<char*> word_pointers, environment_pointers;

  Image(std::vector<std::string> arguments, const Environment& added)
      : words(std::move(arguments)), environment(settings(added)) {
    words.insert(words.begin(), NIBBLE_PROGRAM);
    word_pointers = pointers(words);
    environment_pointers = pointers(environment);
  }
  [[noreturn]] void become() {
    execve(NIBBLE_PROGRAM, word_pointers.data(), environment_pointers.data());
    _exit(127);
  }
};

Finished wait_for_end(pid_t child) {
  Finished finished;
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(state)) finished.code = WEXITSTATUS(state);
  if (WIFSIGNALED(state)) finished.signal = WTERMSIG(state);
  return finished;
}

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    read = ends[0];
    write = ends[1];
  }
  static void close(int& end) {
    if (end >= 0) ::close(end);
    end = -1;
  }
};

}  // namespace

Finished call(const Call& what) {
  std::signal(SIGPIPE, SIG_IGN);  // a program that does not read its input is no reason for us to end
  Image image(what.arguments, what.environment);
  Pipe in, out, err;
  int file = -1;
  if (!what.out_path.empty()) REQUIRE((file = open(what.out_path.c_str(), O_WRONLY | O_CLOEXEC)) >= 0);
  if (what.reader_gone) Pipe::close(out.read);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(in.read, 0);
    dup2(file >= 0 ? file : out.write, 1);
    dup2(err.write, 2);
    image.become();
  }
  if (file >= 0) close(file);
  Pipe::close(in.read);
  Pipe::close(out.write);
  Pipe::close(err.write);

  std::string out_text, err_text;
  std::size_t written = 0;
  bool interrupted = false;
  const auto deadline = Clock::now() + kPatience;
  while (out.read >= 0 || err.read >= 0) {
    if (in.write >= 0 && written == what.input.size()) Pipe::close(in.write);
    std::array<pollfd, 3> watched = {pollfd{out.read, POLLIN, 0}, pollfd{err.read, POLLIN, 0},
                                     pollfd{in.write, POLLOUT, 0}};
    poll(watched.data(), watched.size(), 1000);
    if (Clock::now() > deadline) {
      kill(child, SIGKILL);
      FAIL("the program did not end");
    }
    char bytes[4096];
    const auto receive = [&](int& end, std::string& text) {
      const ssize_t count = read(end, bytes, sizeof bytes);
      if (count > 0)
        text.append(bytes, static_cast<std::size_t>(count));
      else
        Pipe::close(end);
    };
    if (watched[0].revents) receive(out.read, out_text);
    if (watched[1].revents) receive(err.read, err_text);
    if (watched[2].revents) {
      const ssize_t count = write(in.write, what.input.data() + written, what.input.size() - written);
      if (count < 0)
        Pipe::close(in.write);
      else
        written += static_cast<std::size_t>(count);
    }
    if (what.interrupt_after > 0 && !interrupted &&
        out_text.size() >= static_cast<std::size_t>(what.interrupt_after)) {
      kill(child, SIGINT);
      interrupted = true;
    }
  }
  Pipe::close(in.write);
  Finished finished = wait_for_end(child);
  finished.out = std::move(out_text);
  finished.err = std::move(err_text);
  return finished;
}

Json json_report(std::vector<std::string> arguments, std::string input) {
  const Finished run = nibble(std::move(arguments), std::move(input));
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  auto json = parse_json(run.out, "stdout");
  REQUIRE_MESSAGE(json.ok(), json.status().message());
  return json.take();
}

bool has_terminals() {
  int ours = -1, theirs = -1;
  if (openpty(&ours, &theirs, nullptr, nullptr, nullptr) != 0) return false;
  close(ours);
  close(theirs);
  return true;
}

OnTerminal::OnTerminal(std::vector<std::string> arguments, const Environment& environment) {
  Image image(std::move(arguments), environment);
  winsize size = {};
  size.ws_row = 40;
  size.ws_col = 100;
  child_ = forkpty(&terminal_, nullptr, nullptr, &size);
  REQUIRE(child_ >= 0);
  if (child_ == 0) image.become();
}

OnTerminal::~OnTerminal() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    wait_for_end(child_);
  }
  if (terminal_ >= 0) close(terminal_);
}

void OnTerminal::type(std::string_view keys) {
  REQUIRE(write(terminal_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
}

bool OnTerminal::receive(int milliseconds) {
  pollfd watched = {terminal_, POLLIN, 0};
  if (poll(&watched, 1, milliseconds) <= 0) return true;
  char bytes[4096];
  const ssize_t count = read(terminal_, bytes, sizeof bytes);
  if (count <= 0) return false;  // the other side was closed
  shown_.append(bytes, static_cast<std::size_t>(count));
  return true;
}

bool OnTerminal::wait_for(std::string_view text) {
  const auto deadline = Clock::now() + kPatience;
  for (;;) {
    if (const std::size_t at = shown_.find(text, matched_); at != std::string::npos) {
      matched_ = at + text.size();
      return true;
    }
    if (!receive(100) || Clock::now() > deadline) return false;
  }
}

int OnTerminal::leave() {
  for (const auto deadline = Clock::now() + kPatience; Clock::now() < deadline;) {
    type(kCtrlU);
    type(kCtrlD);
    // A second's grace whatever it shows: keys typed while it leaves would keep it from draining the
    // terminal.
    for (const auto grace = Clock::now() + std::chrono::seconds(1); Clock::now() < grace;)
      if (!receive(100)) return finish();
  }
  return -1;
}

int OnTerminal::finish() {
  const auto deadline = Clock::now() + kPatience;
  while (receive(100) && Clock::now() < deadline) {
  }
  if (Clock::now() >= deadline) return -1;
  const Finished finished = wait_for_end(child_);
  child_ = -1;
  return finished.code;
}

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "nibble-program-XXXXXX").string();
  REQUIRE(mkdtemp(name.data()) != nullptr);
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Folder::write(const std::filesystem::path& folder, const std::string& name,
                          std::string_view content) {
  const std::filesystem::path path = folder / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << content;
  REQUIRE(file.good());
  return path.string();
}

}  // namespace nib::test
