// Room formats: E8M0: the shared scale of the OCP MX formats: a power of two in one byte.
//
//   code b = 0..254   2^(b - 127)      no zero, no sign, no infinity
//   code 255          NaN: every value of the group is NaN
//
// Code 0 is 2^-127, which f32 holds only as a subnormal (0x00400000): in an environment that flushes
// subnormals, products with it are zero. Any thread.
#pragma once

#include <nibble/formats/lanes.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

struct E8M0 {
  static constexpr int bits = 8;
  using Code = std::uint8_t;

  Code code = 127;  // one
  friend constexpr bool operator==(E8M0, E8M0) = default;

  static constexpr Code nan = 0xff;

  // Exact.
  static constexpr float decode(Code code) {
    if (code == nan) return std::bit_cast<float>(0x7fc0'0000u);
    return std::bit_cast<float>(code == 0 ? 0x0040'0000u : static_cast<std::uint32_t>(code) << 23);
  }

  // The power of two nearest to `value`, ties up, as ml_dtypes has it: NaN for zero, negative numbers, NaN
  // and what rounds past 2^127; everything up to 2^-127 is code 0 and everything between 2^-127 and 2^-126
  // rounds up, since f32 has no exponent of its own down there. Scale rules do not use it: see
  // scale_rules.hpp.
  static constexpr Code encode(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if (word == 0 || word > 0x7f80'0000u) return nan;
    if (word <= 0x0040'0000u) return 0;
    return static_cast<Code>((word + 0x0040'0000u) >> 23);
  }

  // 2^exponent, clamped to what the byte holds: 2^-127 .. 2^127.
  static constexpr Code from_exponent(int exponent) {
    return static_cast<Code>(exponent < -127 ? 0 : exponent > 127 ? 254 : exponent + 127);
  }

  // value / 2^(code - 127), rounded only where f32 has no such number (below 2^-126: nothing that any element
  // type tells from zero). Zero for the NaN code: its group has nothing left to keep.
  static constexpr float quotient(float value, Code code) {
    if (code == nan) return 0.0f;
    const auto reciprocal = std::bit_cast<double>(static_cast<std::uint64_t>(1023 + 127 - code) << 52);
    return static_cast<float>(static_cast<double>(value) * reciprocal);
  }

  // The same of four at a time, where f32 has the reciprocal.
  static constexpr bool has_lanes(Code code) { return code <= 252; }
  static lanes::Floats quotient(lanes::Floats values, Code code) {
    return values * std::bit_cast<float>((254u - code) << 23);
  }

  static constexpr E8M0 from(float value) { return {encode(value)}; }
  friend constexpr float to_float(E8M0 value) { return decode(value.code); }
};

}  // namespace nib::inline v0
