// Room formats: E2M1: the FP4 of the OCP MX formats: sign, two exponent bits (bias 1), one mantissa bit.
//
//   code   0    1    2    3    4    5    6    7     codes 8..15: the same with a minus sign, -0 included
//   value  0   0.5   1   1.5   2    3    4    6     no infinity, no NaN; 0.5 is the only subnormal
//
// Bit for bit Minifloat<2, 1>; written out because this table is what everybody looks for, and because the
// encoder below has no branch. Doubled, the values are small integers: 0 1 2 3 4 6 8 12.
#pragma once

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

struct E2M1 {
  static constexpr int bits = 4;
  using Code = std::uint8_t;

  Code code = 0;
  friend constexpr bool operator==(E2M1, E2M1) = default;  // of codes, so +0 != -0

  static constexpr float levels[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                       -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

  // Exact; the upper four bits of `code` are ignored.
  static constexpr float decode(Code code) { return levels[code & 15u]; }

  // The nearest value, ties to the even code (hence > and >= in turn); beyond 6, infinities included,
  // saturates. The sign is kept, also of what rounds to zero. NaN gives zero of the opposite sign, as
  // ml_dtypes does.
  static constexpr Code encode(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const float x = std::bit_cast<float>(word & 0x7fff'ffffu);
    const unsigned magnitude = static_cast<unsigned>(x > 0.25f) + static_cast<unsigned>(x >= 0.75f) +
                               static_cast<unsigned>(x > 1.25f) + static_cast<unsigned>(x >= 1.75f) +
                               static_cast<unsigned>(x > 2.5f) + static_cast<unsigned>(x >= 3.5f) +
                               static_cast<unsigned>(x > 5.0f);
    const unsigned nan = static_cast<unsigned>((word & 0x7fff'ffffu) > 0x7f80'0000u);
    return static_cast<Code>(magnitude | (((word >> 31) ^ nan) << 3));
  }

  static constexpr E2M1 from(float value) { return {encode(value)}; }
  friend constexpr float to_float(E2M1 value) { return decode(value.code); }

  // The largest value.
  static constexpr float max() { return 6.0f; }
};

}  // namespace nib::inline v0
