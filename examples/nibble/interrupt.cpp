#include "interrupt.hpp"

#include "exit_code.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace nib::program {
namespace {

// A signal handler reaches nothing but globals.
Cancel interrupt_cancel;
std::atomic<int> interrupt_presses{0};
struct sigaction previous_action;
// A press also puts a byte here: whoever is about to wait for input cannot miss it, as it could miss a
// signal.
int wake_pipe[2] = {-1, -1};

constexpr int kMostPresses = 3;

void on_interrupt(int) {
  interrupt_cancel.trigger();
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(wake_pipe[1], "", 1);
  errno = error;
  if (interrupt_presses.fetch_add(1) + 1 >= kMostPresses) _exit(kInterrupted);
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0) wake_pipe[0] = wake_pipe[1] = -1;
  forget();
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_action);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &previous_action, nullptr);
  close(wake_pipe[0]);
  close(wake_pipe[1]);
}

const Cancel* Interrupts::cancel() const { return &interrupt_cancel; }
int Interrupts::presses() const { return interrupt_presses.load(); }

void Interrupts::forget() {
  interrupt_presses.store(0);
  interrupt_cancel.reset();
  for (char bytes[16]; read(wake_pipe[0], bytes, sizeof bytes) > 0;) {
  }
}

bool Interrupts::wait_for_input(int descriptor) const {
  for (;;) {
    pollfd watched[] = {{descriptor, POLLIN, 0}, {wake_pipe[0], POLLIN, 0}};
    const int ready = poll(watched, 2, -1);
    if (presses() > 0) return false;
    if (ready > 0 || errno != EINTR) return true;
  }
}

}  // namespace nib::program
