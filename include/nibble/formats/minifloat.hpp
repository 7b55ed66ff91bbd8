// Room formats: Minifloat<E, M>: every small binary floating-point number, as one constexpr value type.
//
//   code    [ sign:1 | exponent:E | mantissa:M ], the sign in the highest bit
//   value   exponent = 0   (-1)^sign * mantissa * 2^(1 - bias - M)              subnormals and zero
//           otherwise      (-1)^sign * (1 + mantissa / 2^M) * 2^(exponent - bias)
//
// What the topmost codes mean (NonFinite) and what becomes of a value too large for the format (Overflow)
// differ between standards and libraries, so both are parameters. Integer arithmetic throughout: constexpr,
// independent of the floating-point environment, any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace nib::inline v0 {

// Which of the topmost codes are no finite numbers.
enum class NonFinite : std::uint8_t {
  none,  // every code is a finite number (OCP FP4 and FP6)
  nan,   // exponent and mantissa all ones: NaN; no infinity (OCP E4M3, "fn")
  ieee,  // exponent all ones: infinity or NaN (OCP E5M2, binary16, bfloat16)
};

// Of finite values beyond the largest (after rounding) and of infinities. A format of finite values alone
// always saturates.
enum class Overflow : std::uint8_t {
  saturate,  // the largest finite value of that sign
  special,   // infinity where there is one, else NaN
};

// E exponent bits, M mantissa bits; 1 + E + M <= 16, E <= 8. Bias: the conventional one unless given.
template <int E, int M, NonFinite N = NonFinite::none, Overflow O = Overflow::saturate,
          int Bias = (1 << (E - 1)) - 1>
struct Minifloat {
  static_assert(E >= 1 && E <= 8 && M >= 0 && 1 + E + M <= 16);
  static_assert(N != NonFinite::ieee || M >= 1, "infinity and NaN need a mantissa bit to differ");
  static_assert(1 - Bias >= -126 && (1 << E) - 1 - Bias <= 128, "f32 must hold every finite value");

  static constexpr int bits = 1 + E + M;
  using Code = std::conditional_t<(bits <= 8), std::uint8_t, std::uint16_t>;

  Code code = 0;
  friend constexpr bool operator==(Minifloat, Minifloat) = default;  // of codes, so +0 != -0 and NaN == NaN

  static constexpr std::uint32_t sign_mask = 1u << (E + M);
  static constexpr std::uint32_t magnitude_mask = sign_mask - 1u;
  // The largest finite number's code.
  static constexpr std::uint32_t max_code = N == NonFinite::none  ? magnitude_mask
                                            : N == NonFinite::nan ? magnitude_mask - 1u
                                                                  : (((1u << E) - 1u) << M) - 1u;

  // Exact. A NaN keeps its sign and becomes the quiet one. Bits above the format's are ignored.
  static constexpr float decode(Code code) {
    const std::uint32_t sign = (code & sign_mask) ? 0x8000'0000u : 0u;
    const std::uint32_t magnitude = code & magnitude_mask;
    if (magnitude > max_code) {
      const bool infinite = N == NonFinite::ieee && magnitude == max_code + 1u;
      return std::bit_cast<float>(sign | (infinite ? 0x7f80'0000u : 0x7fc0'0000u));
    }
    if (magnitude >> M) return std::bit_cast<float>(sign | ((magnitude << (23 - M)) + kRebase));
    if (magnitude == 0) return std::bit_cast<float>(sign);
    // A subnormal, magnitude * 2^(1 - bias - M): normalized if f32 can, else an f32 subnormal too.
    const int top = 31 - std::countl_zero(magnitude);
    const int exponent = 1 - Bias - M + top;
    const std::uint32_t significand = magnitude << (23 - top);
    if (exponent < -126) return std::bit_cast<float>(sign | (significand >> (-126 - exponent)));
    return std::bit_cast<float>(sign | ((static_cast<std::uint32_t>(exponent + 126) << 23) + significand));
  }

  // The nearest value; of two equally near ones the one with the even code. Overflow as the type says. NaN
  // stays NaN; a format without NaN gives zero of the opposite sign, as ml_dtypes does (the standard leaves
  // it open).
  static constexpr Code encode(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (word >> 31) ? sign_mask : 0u;
    const std::uint32_t input = word & 0x7fff'ffffu;
    if (input > 0x7f80'0000u) return static_cast<Code>(N == NonFinite::none ? sign ^ sign_mask : sign | kNan);
    std::uint32_t magnitude = round_magnitude(input);
    if (magnitude > max_code)
      magnitude = O == Overflow::saturate || N == NonFinite::none ? max_code : max_code + 1u;
    return static_cast<Code>(sign | magnitude);
  }

  static constexpr Minifloat from(float value) { return {encode(value)}; }
  friend constexpr float to_float(Minifloat value) { return decode(value.code); }

  // The largest finite value.
  static constexpr float max() { return decode(static_cast<Code>(max_code)); }

 private:
  // From this exponent field to that of f32, in place.
  static constexpr std::uint32_t kRebase = static_cast<std::uint32_t>(127 - Bias) << 23;
  static constexpr std::uint32_t kNan =
      N == NonFinite::ieee ? (max_code + 1u) | ((1u << M) >> 1) : magnitude_mask;

  // Rounds the f32 magnitude `input` to a code as if exponents went on for ever: a carry out of the mantissa
  // steps the exponent, which is what makes the next code the next value.
  static constexpr std::uint32_t round_magnitude(std::uint32_t input) {
    if (input >= kRebase + (1u << 23) || kRebase == 0) return shift_to_even(input - kRebase, 23 - M);
    const auto field = static_cast<int>(input >> 23);
    const std::uint32_t significand = (input & 0x7f'ffffu) | (field ? 0x80'0000u : 0u);
    // Units of the smallest subnormal: significand * 2^(max(field, 1) - 150) / 2^(1 - Bias - M).
    const int shift = 151 - Bias - M - (field ? field : 1);
    return shift > 24 ? 0u : shift_to_even(significand, shift);
  }

  // value / 2^shift to the nearest integer, ties to even; 1 <= shift <= 24.
  static constexpr std::uint32_t shift_to_even(std::uint32_t value, int shift) {
    return (value + (1u << (shift - 1)) - 1u + ((value >> shift) & 1u)) >> shift;
  }
};

}  // namespace nib::inline v0
