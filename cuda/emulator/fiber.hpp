// Emulator: fibers: several threads of execution on one thread of the system, each with a stack of its own,
// that hand over to each other by name. A switch takes about 25 ns on x86-64; elsewhere it is ucontext's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#if !defined(__x86_64__) && !defined(NIB_FIBERS_OF_UCONTEXT)
#define NIB_FIBERS_OF_UCONTEXT
#endif
#if defined(NIB_FIBERS_OF_UCONTEXT)
#include <ucontext.h>
#endif

namespace nib::inline v0::simt {

// A place to hand over from and to. The thread of the system that calls switch_to first is a fiber without a
// stack of ours.
class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Makes this a fiber that calls entry(argument) when it is next switched to. What it was doing before is
  // forgotten, without unwinding. `entry` must not return.
  void prepare(void (*entry)(void*), void* argument);

  // From this fiber, which is running, to `next`. Returns when something switches back here.
  void switch_to(Fiber& next);

  // The same for the last time: this fiber's function is done.
  [[noreturn]] void end_in(Fiber& next);

  // False if the stack was written to its end, or beyond.
  bool stack_is_whole() const;

 private:
  void hand_over(Fiber& next, void** fake_stack);
  void arrived();
  static void begin(Fiber* self);
#if defined(NIB_FIBERS_OF_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  std::unique_ptr<std::byte[]> stack_;
  // For the address sanitizer, which has to know on which stack it is.
  const void* stack_bottom_ = nullptr;
  std::size_t stack_size_ = 0;
  void* fake_stack_ = nullptr;
  Fiber* came_from_ = nullptr;
};

}  // namespace nib::inline v0::simt
