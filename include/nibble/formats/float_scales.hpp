// Room formats: scales that are small or plain floats instead of powers of two, and the rule for them.
//
//   E4M3Scale   one byte, used without its sign (NVFP4)
//   F16Scale    two bytes
//   F32Scale    four bytes
//
// Division by a scale is one f32 division; a zero or NaN scale has nothing to divide by, and gives zero
// codes.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/formats/scale_rules.hpp>
#include <nibble/formats/small_floats.hpp>

#include <bit>
#include <concepts>
#include <cstdint>

namespace nib::inline v0 {

constexpr bool can_divide(float scale) {
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(scale) & 0x7fff'ffffu;
  return magnitude != 0 && magnitude < 0x7f80'0000u;
}
constexpr float divided_by_scale(float value, float scale) {
  return can_divide(scale) ? value / scale : 0.0f;
}

// nearest() never gives less than 2^-6, the smallest normal number, as the published encoders of NVFP4 do: so
// a group of zeros has scale 2^-6. Decoding takes every code, the sign included.
struct E4M3Scale {
  using Code = std::uint8_t;
  static constexpr Code nan = 0x7f;
  static constexpr int codes_per_octave = 8;
  static constexpr Code smallest = 0x08, largest = 0x7e;
  static constexpr float decode(Code code) { return E4M3::decode(code); }
  static constexpr Code nearest(float ratio) {
    const Code code = E4M3::encode(ratio);
    return code < smallest ? smallest : code;
  }
  static constexpr float quotient(float value, Code code) { return divided_by_scale(value, decode(code)); }
  static constexpr bool has_lanes(Code code) { return can_divide(decode(code)); }
  static lanes::Floats quotient(lanes::Floats values, Code code) { return values / decode(code); }
};

struct F16Scale {
  using Code = std::uint16_t;
  static constexpr Code nan = 0x7e00;
  static constexpr float decode(Code code) { return to_float(f16{code}); }
  static constexpr Code nearest(float ratio) { return to_f16(ratio).bits; }
  static constexpr float quotient(float value, Code code) { return divided_by_scale(value, decode(code)); }
  static constexpr bool has_lanes(Code code) { return can_divide(decode(code)); }
  static lanes::Floats quotient(lanes::Floats values, Code code) { return values / decode(code); }
};

struct F32Scale {
  using Code = std::uint32_t;
  static constexpr Code nan = 0x7fc0'0000u;
  static constexpr float decode(Code code) { return std::bit_cast<float>(code); }
  static constexpr Code nearest(float ratio) { return std::bit_cast<Code>(ratio); }
  static constexpr float quotient(float value, Code code) { return divided_by_scale(value, decode(code)); }
  static constexpr bool has_lanes(Code code) { return can_divide(decode(code)); }
  static lanes::Floats quotient(lanes::Floats values, Code code) { return values / decode(code); }
};

// The scale nearest to largest magnitude / largest level, so that the largest value is, up to the rounding of
// the scale, the largest level. A group with an infinity or a NaN has the scale NaN.
struct AbsmaxScale {
  static constexpr const char* name = "absmax";

  template <class Element, FloatScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    const float a = largest_magnitude(values, count);
    if (std::bit_cast<std::uint32_t>(a) >= 0x7f80'0000u) return Scale::nan;
    return Scale::nearest(a / Element::max());
  }
};

}  // namespace nib::inline v0
