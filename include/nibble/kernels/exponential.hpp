// Room kernels: e^x in plain f32 operations, the same on every instruction set and on a device: A has the
// verbs of the scalar one (src/kernels/bodies/simd_scalar.hpp).
#pragma once

namespace nib::inline v0::cpu {

// e^x; 0 below -87.3 (where the result would be subnormal), at most e^88. Error below 2 ulp. NaN as
// arithmetic makes it stays NaN (min and max give their second operand). x = n ln 2 + r, |r| <= ln 2 / 2; the
// polynomial is the Taylor series of e^r to r^7 (next term below 2^-27).
template <class A>
[[gnu::always_inline]] constexpr typename A::F exp(typename A::F x) {
  const auto clamped = A::min(A::set(88.0f), A::max(A::set(-87.3f), x));
  const auto shifter = A::set(0x1.8p23f);  // adding it leaves round(x / ln 2) in the low bits
  const auto shifted = A::fma(clamped, A::set(0x1.715476p0f), shifter);
  const auto n = A::sub(shifted, shifter);
  auto r =
      A::fma(n, A::set(-0x1.62e4p-1f), clamped);  // ln 2 in two parts, the first short enough to be exact
  r = A::fma(n, A::set(-0x1.7f7d1cp-20f), r);
  auto p = A::set(1.0f / 5040);
  p = A::fma(p, r, A::set(1.0f / 720));
  p = A::fma(p, r, A::set(1.0f / 120));
  p = A::fma(p, r, A::set(1.0f / 24));
  p = A::fma(p, r, A::set(1.0f / 6));
  p = A::fma(p, r, A::set(0.5f));
  p = A::fma(p, r, A::set(1.0f));
  p = A::fma(p, r, A::set(1.0f));
  return A::if_less(x, A::set(-87.3f), A::set(0.0f), A::scale(p, shifted));
}

}  // namespace nib::inline v0::cpu
