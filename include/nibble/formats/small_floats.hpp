// Room formats: the small floats that have names, and the other splits of four bits that the literature
// compares.
//
//              bits of sign, exponent, mantissa   largest   smallest above zero
//   E2M3       1 2 3                              7.5       0.125      MXFP6
//   E3M2       1 3 2                              28        0.0625     MXFP6
//   E4M3       1 4 3, NaN, no infinity            448       2^-9       "fn"
//   E5M2       1 5 2, IEEE                        57344     2^-16
//   E1M2       1 1 2                              1.75      0.25       a grid of equal steps
//   E3M0       1 3 0                              16        0.25       powers of two
//   Radix4Fp4  1 3 0, in base 4                   64        2^-6       powers of four
//
// E2M1 has a header of its own.
#pragma once

#include <nibble/formats/minifloat.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

using E2M3 = Minifloat<2, 3>;
using E3M2 = Minifloat<3, 2>;
using E4M3 = Minifloat<4, 3, NonFinite::nan>;   // finite overflow saturates
using E5M2 = Minifloat<5, 2, NonFinite::ieee>;  // finite overflow saturates
using E1M2 = Minifloat<1, 2, NonFinite::none, Overflow::saturate, 1>;
using E3M0 = Minifloat<3, 0>;

// Sign and an exponent of base 4: code 0 is zero, code c = 1..7 is 4^(c - 4); codes 8..15 negated. Proposed
// for gradients, whose range of 4096 : 1 matters more than their precision.
struct Radix4Fp4 {
  static constexpr int bits = 4;
  using Code = std::uint8_t;

  static constexpr float decode(Code code) {
    const std::uint32_t sign = (code & 8u) ? 0x8000'0000u : 0u;
    const std::uint32_t power = code & 7u;
    return std::bit_cast<float>(sign | (power ? (127u + 2u * power - 8u) << 23 : 0u));
  }

  // The nearest value; ties (2.5 * 4^k) to the even code. NaN gives zero of the opposite sign, like the other
  // formats without NaN.
  static constexpr Code encode(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t input = word & 0x7fff'ffffu;
    if (input > 0x7f80'0000u) return static_cast<Code>(((word >> 31) ^ 1u) << 3);
    Code magnitude = 0;
    for (Code next = 1; next < 8; ++next) {
      const float middle = (decode(static_cast<Code>(next - 1)) + decode(next)) * 0.5f;  // exact
      const float x = std::bit_cast<float>(input);
      if (x > middle || (x == middle && next % 2 == 0)) magnitude = next;
    }
    return static_cast<Code>(magnitude | ((word >> 31) << 3));
  }

  static constexpr float max() { return 64.0f; }
};

}  // namespace nib::inline v0
