#include "fiber.hpp"

#include <cstring>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define NIB_FIBERS_UNDER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIB_FIBERS_UNDER_ASAN
#endif
#endif
#if defined(NIB_FIBERS_UNDER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(NIB_FIBERS_OF_UCONTEXT)
// What a call has to preserve goes to the stack, and the stack pointer changes hands. A new fiber's stack
// looks as if it had stopped in here: nib_simt_switch "returns" to nib_simt_start, which finds the fiber in
// r12 and the function in r13.
extern "C" void nib_simt_switch(void** from, void* to);
extern "C" void nib_simt_start();
asm(R"(
.text
.type nib_simt_switch, @function
nib_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size nib_simt_switch, . - nib_simt_switch
.type nib_simt_start, @function
nib_simt_start:
  .cfi_startproc
  .cfi_undefined rip
  movq %r12, %rdi
  callq *%r13
  ud2
  .cfi_endproc
.size nib_simt_start, . - nib_simt_start
)");
#endif

namespace nib::inline v0::simt {
namespace {

#if defined(NIB_FIBERS_UNDER_ASAN)
constexpr std::size_t kStackBytes = 256 << 10;
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif
// At the far end of the stack: whoever overruns it comes by here.
constexpr std::size_t kMarkBytes = 64;
constexpr unsigned char kMark = 0x5c;

}  // namespace

Fiber::Fiber() = default;
Fiber::~Fiber() = default;

void Fiber::prepare(void (*entry)(void*), void* argument) {
  if (!stack_) {
    stack_ = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
    stack_bottom_ = stack_.get();
    stack_size_ = kStackBytes;
  }
#if defined(NIB_FIBERS_UNDER_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(stack_.get(), kStackBytes);  // frames that were left without unwinding
#endif
  std::memset(stack_.get(), kMark, kMarkBytes);
  entry_ = entry;
  argument_ = argument;
  fake_stack_ = nullptr;
#if !defined(NIB_FIBERS_OF_UCONTEXT)
  // From the top: what `begin` would return to, the address that the switch returns to, six registers. At
  // nib_simt_start the stack is at a multiple of sixteen, as before any call.
  auto top = reinterpret_cast<std::uintptr_t>(stack_.get() + kStackBytes) & ~std::uintptr_t{63};
  auto* word = reinterpret_cast<std::uintptr_t*>(top) - 9;
  word[6] = reinterpret_cast<std::uintptr_t>(&nib_simt_start);
  word[7] = word[8] = 0;
  word[0] = word[1] = word[4] = word[5] = 0;           // r15, r14, rbx, rbp
  word[2] = reinterpret_cast<std::uintptr_t>(&begin);  // r13
  word[3] = reinterpret_cast<std::uintptr_t>(this);    // r12
  stack_pointer_ = word;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_.get();
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);  // in two ints: makecontext passes no pointers
  makecontext(&context_, reinterpret_cast<void (*)()>(+[](unsigned high, unsigned low) {
    begin(reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(std::uint64_t{high} << 32 | low)));
  }),
              2, static_cast<unsigned>(std::uint64_t{self} >> 32), static_cast<unsigned>(self));
#endif
}

void Fiber::switch_to(Fiber& next) {
  hand_over(next, &fake_stack_);
  arrived();
}

void Fiber::end_in(Fiber& next) {
  hand_over(next, nullptr);  // frees the sanitizer's stack
  __builtin_unreachable();
}

void Fiber::hand_over(Fiber& next, [[maybe_unused]] void** fake_stack) {
  next.came_from_ = this;
#if defined(NIB_FIBERS_UNDER_ASAN)
  __sanitizer_start_switch_fiber(fake_stack, next.stack_bottom_, next.stack_size_);
#endif
#if !defined(NIB_FIBERS_OF_UCONTEXT)
  nib_simt_switch(&stack_pointer_, next.stack_pointer_);
#else
  swapcontext(&context_, &next.context_);
#endif
}

// Where the system's own stack is, only the one that came from there can tell.
void Fiber::arrived() {
#if defined(NIB_FIBERS_UNDER_ASAN)
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(std::exchange(fake_stack_, nullptr), &bottom, &size);
  if (came_from_ && !came_from_->stack_) {
    came_from_->stack_bottom_ = bottom;
    came_from_->stack_size_ = size;
  }
#endif
}

void Fiber::begin(Fiber* self) {
  self->arrived();
  self->entry_(self->argument_);
}

bool Fiber::stack_is_whole() const {
  for (std::size_t i = 0; stack_ && i < kMarkBytes; ++i)
    if (stack_[i] != std::byte{kMark}) return false;
  return true;
}

}  // namespace nib::inline v0::simt
