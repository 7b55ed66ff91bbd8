// Room formats: scale rules: how an encoder picks the power of two that a group of values shares.
//
// With a = the largest magnitude of the group and m = the element type's largest value (6 for E2M1):
//
//   FloorScale        2^(floor(log2 a) - floor(log2 m)): the minimum that OCP MX asks for, and the default.
//                     a lands in [4, 8) of E2M1, and what lies above 6 is clipped.
//   RoundUpScale      the smallest 2^k with m * 2^k >= a: never clips. The choice of Triton's MXFP4 kernels.
//   LeastErrorScale   the 2^k with the least sum of squared errors over the group: never worse, but slower.
//
// For every rule: a group of zeros has scale code 0; a group with an infinity or a NaN has no scale, its code
// is NaN (0xff), so that what was lost stays visible; exponents below -127 clamp to code 0. Exponents and
// significands are compared as integers, so no rule depends on how a division rounds. Any thread.
#pragma once

#include <nibble/formats/lanes.hpp>

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace nib::inline v0 {

// A magnitude as exponent and 24-bit significand: significand * 2^(exponent - 23), the significand normalized
// (bit 23 set) also for f32 subnormals.
struct Magnitude {
  int exponent;
  std::uint32_t significand;

  // Of a finite value other than zero.
  static constexpr Magnitude of(float value) {
    const std::uint32_t word = std::bit_cast<std::uint32_t>(value) & 0x7fff'ffffu;
    if (word >> 23) return {static_cast<int>(word >> 23) - 127, (word & 0x7f'ffffu) | 0x80'0000u};
    const int lead = std::countl_zero(word) - 8;
    return {-126 - lead, word << lead};
  }
};

// The largest magnitude of `values`, or a NaN or an infinity when there is one. `count` values.
constexpr float largest_magnitude(const float* values, std::int64_t count) {
  if (!std::is_constant_evaluated()) return std::bit_cast<float>(lanes::largest(values, count));
  std::uint32_t largest = 0;  // magnitudes order as their bits do, with infinity and NaN above all numbers
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t word = std::bit_cast<std::uint32_t>(values[i]) & 0x7fff'ffffu;
    largest = word > largest ? word : largest;
  }
  return std::bit_cast<float>(largest);
}

// A scale codec that holds powers of two, and a NaN for groups that have no scale.
template <class T>
concept PowerOfTwoScale = requires(int exponent) {
  { T::from_exponent(exponent) } -> std::same_as<typename T::Code>;
  { T::nan } -> std::convertible_to<typename T::Code>;
};

// A scale codec that holds floats of few or many bits, and a NaN for groups that have no scale:
// float_scales.hpp.
template <class T>
concept FloatScale = requires(float ratio) {
  { T::nearest(ratio) } -> std::same_as<typename T::Code>;
  { T::nan } -> std::convertible_to<typename T::Code>;
};

// One whose codes 0..largest are few enough to be searched, in ascending order of their values.
template <class T>
concept SearchableScale = FloatScale<T> && requires {
  { T::codes_per_octave } -> std::convertible_to<int>;
  { T::smallest } -> std::convertible_to<typename T::Code>;
  { T::largest } -> std::convertible_to<typename T::Code>;
};

// A rule is a type with choose<Element, Scale>(values, count) -> Scale::Code.
struct FloorScale {
  static constexpr const char* name = "floor";

  template <class Element, PowerOfTwoScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    const auto a = std::bit_cast<std::uint32_t>(largest_magnitude(values, count));
    if (a >= 0x7f80'0000u) return Scale::nan;
    if (a == 0) return Scale::from_exponent(-127);
    return Scale::from_exponent(Magnitude::of(std::bit_cast<float>(a)).exponent -
                                Magnitude::of(Element::max()).exponent);
  }
};

struct RoundUpScale {
  static constexpr const char* name = "round-up";

  template <class Element, PowerOfTwoScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    const auto a = std::bit_cast<std::uint32_t>(largest_magnitude(values, count));
    if (a >= 0x7f80'0000u) return Scale::nan;
    if (a == 0) return Scale::from_exponent(-127);
    const Magnitude magnitude = Magnitude::of(std::bit_cast<float>(a));
    constexpr Magnitude kMax = Magnitude::of(Element::max());
    return Scale::from_exponent(magnitude.exponent - kMax.exponent +
                                (magnitude.significand > kMax.significand ? 1 : 0));
  }

  // Of a float scale: its smallest value not below a / m.
  template <class Element, SearchableScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    const float a = largest_magnitude(values, count);
    if (std::bit_cast<std::uint32_t>(a) >= 0x7f80'0000u) return Scale::nan;
    const typename Scale::Code nearest = Scale::nearest(a / Element::max());
    const double reached = static_cast<double>(Scale::decode(nearest)) * static_cast<double>(Element::max());
    const bool short_of = reached < static_cast<double>(a) && nearest < Scale::largest;
    return static_cast<typename Scale::Code>(nearest + (short_of ? 1 : 0));
  }
};

struct LeastErrorScale {
  static constexpr const char* name = "least-error";

  // Searches downwards from just below twice the round-up scale. Above it nothing can be gained: the levels
  // of a doubled scale are among those of the scale itself, up to the largest. Below it the largest value is
  // clipped, and once that alone costs as much as the best so far, smaller scales only cost more. Of equals
  // the larger scale wins, but the round-up scale above all.
  template <class Element, PowerOfTwoScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    return search<Element, Scale>(values, count, 0, 0);
  }
  template <class Element, SearchableScale Scale>
  static constexpr typename Scale::Code choose(const float* values, int count) {
    return search<Element, Scale>(values, count, Scale::codes_per_octave - 1, Scale::smallest);
  }

  // Sum over the group of (value - its nearest level * scale)^2.
  template <class Element, class Scale>
  static constexpr double squared_error(const float* values, int count, typename Scale::Code code) {
    const double scale = Scale::decode(code);
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      const double level = Element::decode(Element::encode(Scale::quotient(values[i], code)));
      const double error = static_cast<double>(values[i]) - level * scale;
      sum += error * error;
    }
    return sum;
  }

 private:
  template <class Element, class Scale>
  static constexpr typename Scale::Code search(const float* values, int count, int above, int smallest) {
    typename Scale::Code best = RoundUpScale::choose<Element, Scale>(values, count);
    if (best == Scale::nan) return best;
    const double largest = largest_magnitude(values, count);
    double least = squared_error<Element, Scale>(values, count, best);
    int candidate = best + above;
    if constexpr (SearchableScale<Scale>) candidate = candidate < Scale::largest ? candidate : Scale::largest;
    for (; candidate >= smallest; --candidate) {
      const auto code = static_cast<typename Scale::Code>(candidate);
      const double clipped = largest - static_cast<double>(Element::max()) * Scale::decode(code);
      if (clipped > 0 && clipped * clipped >= least) break;
      const double error = squared_error<Element, Scale>(values, count, code);
      if (error < least) {
        least = error;
        best = code;
      }
    }
    return best;
  }
};

}  // namespace nib::inline v0
