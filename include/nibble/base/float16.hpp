// Room base: bf16 and f16 as plain 2-byte values with exact widening and round-to-nearest-even narrowing.
//
// bf16: sign, 8 exponent bits, 7 mantissa bits: the upper half of an f32. f16: IEEE 754 binary16.
// All functions are constexpr, independent of the floating-point environment (integer arithmetic), any
// thread.
#pragma once

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

struct bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bf16, bf16) = default;
};

struct f16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(f16, f16) = default;
};

// Exact; NaN stays NaN.
constexpr float to_float(bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Nearest, ties to even; overflow becomes infinity, NaN a quiet NaN of the same sign.
constexpr bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fff'ffffu) > 0x7f80'0000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x0040u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Exact; subnormals become normal f32 values.
constexpr float to_float(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  std::uint32_t exponent = (value.bits >> 10) & 0x1fu;
  std::uint32_t mantissa = value.bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f80'0000u | (mantissa << 13));
  if (exponent == 0) {
    if (mantissa == 0) return std::bit_cast<float>(sign);
    const auto shift =
        static_cast<std::uint32_t>(std::countl_zero(mantissa)) - 21u;  // bring the top bit to bit 10
    mantissa = (mantissa << shift) & 0x3ffu;
    exponent = 1u - shift;
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

// Nearest, ties to even; overflow becomes infinity, NaN a quiet NaN.
constexpr f16 to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fff'ffffu;
  if (magnitude > 0x7f80'0000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477f'f000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // 65520 and above
  if (magnitude >= 0x3880'0000u) {  // normal: 2^-14 and above
    const std::uint32_t rebased = magnitude - 0x3800'0000u;
    return {static_cast<std::uint16_t>(sign | ((rebased + 0x0fffu + ((rebased >> 13) & 1u)) >> 13))};
  }
  if (magnitude < 0x3300'0000u) return {sign};           // below 2^-25: zero
  const std::uint32_t shift = 126u - (magnitude >> 23);  // 14 for 2^-14 .. 24 for 2^-24
  const std::uint32_t mantissa = (magnitude & 0x7f'ffffu) | 0x80'0000u;
  const std::uint32_t kept = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
  const std::uint32_t half = 1u << (shift - 1u);
  return {
      static_cast<std::uint16_t>(sign | (kept + (rest > half || (rest == half && (kept & 1u)) ? 1u : 0u)))};
}

}  // namespace nib::inline v0
