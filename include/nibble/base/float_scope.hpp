// Room base: FloatScope: the floating-point environment of canonical arithmetic, for as long as it lives.
//
// Round to nearest even, subnormals flushed to zero in results (FTZ) and in operands (DAZ), no traps. Every
// entry of the library that computes and every pool thread holds one; the host's environment comes back when
// it ends. Encoders of number formats, whose bytes are defined by IEEE 754 alone, keep subnormals.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace nib::inline v0 {

enum class Subnormals : bool { flushed, kept };

class FloatScope {
 public:
#if defined(__x86_64__)
  explicit FloatScope(Subnormals subnormals = Subnormals::flushed) : saved_(_mm_getcsr()) {
    _mm_setcsr(subnormals == Subnormals::kept ? kIeee : kCanonical);
  }
  ~FloatScope() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  explicit FloatScope(Subnormals subnormals = Subnormals::flushed) {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("mrs %0, fpsr" : "=r"(saved_flags_));
    asm volatile("msr fpcr, %0" ::"r"(subnormals == Subnormals::kept ? kIeee : kCanonical) : "memory");
  }
  ~FloatScope() {
    asm volatile("msr fpcr, %0" ::"r"(saved_) : "memory");
    asm volatile("msr fpsr, %0" ::"r"(saved_flags_));
  }
#else
#error "FloatScope needs the control register of this processor"
#endif
  FloatScope(const FloatScope&) = delete;
  FloatScope& operator=(const FloatScope&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr unsigned kIeee = 0x1f80;       // all exceptions masked, nearest
  static constexpr unsigned kCanonical = 0x9fc0;  // the same, FTZ (bit 15), DAZ (bit 6)
  unsigned saved_;
#else
  static constexpr std::uint64_t kIeee = 0;                            // nearest, no traps
  static constexpr std::uint64_t kCanonical = std::uint64_t{1} << 24;  // the same, FZ
  std::uint64_t saved_ = 0, saved_flags_ = 0;
#endif
};

}  // namespace nib::inline v0
