#include "interrupt.hpp"

#include "exit_code.hpp"

#include <atomic>
#include <csignal>

#include <unistd.h>

namespace nib::program {
namespace {

// A signal handler reaches nothing but globals.
Cancel interrupt_cancel;
std::atomic<int> interrupt_presses{0};
struct sigaction previous_action;

constexpr int kMostPresses = 3;

void on_interrupt(int) {
  interrupt_cancel.trigger();
  if (interrupt_presses.fetch_add(1) + 1 >= kMostPresses) _exit(kInterrupted);
}

}  // namespace

Interrupts::Interrupts() {
  forget();
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: a read that waits for a line comes back
  sigaction(SIGINT, &action, &previous_action);
}

Interrupts::~Interrupts() { sigaction(SIGINT, &previous_action, nullptr); }

const Cancel* Interrupts::cancel() const { return &interrupt_cancel; }
int Interrupts::presses() const { return interrupt_presses.load(); }

void Interrupts::forget() {
  interrupt_presses.store(0);
  interrupt_cancel.reset();
}

}  // namespace nib::program
