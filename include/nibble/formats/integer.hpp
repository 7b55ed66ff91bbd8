// Room formats: integers as elements.
//
//   SymmetricInt<B>   clip(round(x), -2^(B-1), 2^(B-1) - 1), two's complement in B bits, to nearest even. The
//                     scale of a group is its largest magnitude / (2^(B-1) - 1), so that the lowest code is
//                     never needed; an encoder that is handed a smaller scale may use it.
//   FixedPointInt8    the element of MXINT8: an integer of -127..127 times 2^-6; -128 decodes to -2
//
// Integer arithmetic and exact subtractions only: independent of the host's rounding mode. Any thread.
#pragma once

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

// To the nearest integer, ties to even, clipped to [low, high]; both within +-2^23. NaN is 0.
constexpr std::int32_t round_to_int(float value, std::int32_t low, std::int32_t high) {
  const auto lowest = static_cast<float>(low), highest = static_cast<float>(high);
  const float x = value >= lowest ? value <= highest ? value : highest : value < lowest ? lowest : 0.0f;
  const auto whole = static_cast<std::int32_t>(x);
  const float rest = x - static_cast<float>(whole);  // exact
  const auto odd = static_cast<bool>(whole & 1);
  return whole + static_cast<std::int32_t>((rest > 0.5f) | ((rest == 0.5f) & odd)) -
         static_cast<std::int32_t>((rest < -0.5f) | ((rest == -0.5f) & odd));
}

template <int B>
struct SymmetricInt {
  static_assert(B >= 2 && B <= 8);
  static constexpr int bits = B;
  using Code = std::uint8_t;
  static constexpr std::int32_t highest = (1 << (B - 1)) - 1;

  // Exact; bits above the lowest B are ignored.
  static constexpr float decode(Code code) {
    const auto low = static_cast<std::int32_t>(code & ((1u << B) - 1u));
    return static_cast<float>(low > highest ? low - (1 << B) : low);
  }
  static constexpr Code encode(float value) {
    return static_cast<Code>(round_to_int(value, -highest - 1, highest) & ((1 << B) - 1));
  }
  static constexpr float max() { return static_cast<float>(highest); }
};

struct FixedPointInt8 {
  static constexpr int bits = 8;
  using Code = std::uint8_t;

  static constexpr float decode(Code code) { return SymmetricInt<8>::decode(code) * 0.015625f; }
  static constexpr Code encode(float value) {
    return static_cast<Code>(round_to_int(value * 64.0f, -127, 127) & 0xff);
  }
  static constexpr float max() { return 1.984375f; }
};

}  // namespace nib::inline v0
