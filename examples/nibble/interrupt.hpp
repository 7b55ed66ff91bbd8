// Ctrl-C as a cancel: the handler triggers it, work under it ends within one layer of the model.
#pragma once

#include <nibble/base/cancel.hpp>

namespace nib::program {

// From construction to destruction SIGINT does not end the process but counts here. Only one at a time. The
// third press without an answer ends the process all the same.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Triggered by each press, until forget().
  const Cancel* cancel() const;
  // Presses since the beginning or the last forget().
  int presses() const;
  void forget();
  // Waits until `descriptor` can be read or has ended; false when a press came first.
  bool wait_for_input(int descriptor) const;
};

}  // namespace nib::program
