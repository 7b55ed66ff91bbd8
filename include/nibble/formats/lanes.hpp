// Room formats: four values at a time, for encoders at run time: what the scalar definitions say, without
// their branches. In the vector types of GCC and Clang, which every processor has; constant expressions take
// the definitions.
#pragma once

#include <nibble/formats/code_books.hpp>
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/integer.hpp>
#include <nibble/formats/small_floats.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nib::inline v0 {

namespace lanes {

constexpr int kLanes = 4;
using Floats = float __attribute__((vector_size(16)));
using Ints = std::int32_t __attribute__((vector_size(16)));

inline Floats load(const float* from) {
  Floats out;
  std::memcpy(&out, from, sizeof out);
  return out;
}
inline void store(Ints x, std::int32_t* to) { std::memcpy(to, &x, sizeof x); }
inline Ints bits(Floats x) { return reinterpret_cast<Ints>(x); }
inline Floats magnitude(Floats x) { return reinterpret_cast<Floats>(bits(x) & 0x7fff'ffff); }
inline Floats all(float x) { return Floats{} + x; }

// Codes of four values, each in the low bits of a lane. A comparison is -1 where it holds.
template <class Element>
struct Encode;

template <>
struct Encode<E2M1> {
  static Ints codes(Floats x) {
    const Floats m = magnitude(x);
    const Ints steps =
        (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) + (m >= 3.5f) + (m > 5.0f);
    return -steps | ((bits(x) >> 28 ^ (x != x)) & 8);
  }
};

template <>
struct Encode<Nf4Levels> {
  static Ints codes(Floats x) {
    Ints below = {};
#pragma GCC unroll 15
    for (const float middle : Nf4Levels::middles) below += x > middle;
    return -below;
  }
};

template <>
struct Encode<BnbFp4Levels> {
  // Each threshold that is passed changes some bits of the code: magnitudes are in no order.
  static Ints codes(Floats x) {
    constexpr const float(&t)[7] = BnbFp4Levels::middles;
    const Floats m = magnitude(x);
    const Ints nonzero = m > t[0];
    const Ints code = (nonzero & 1) ^ ((m > t[1]) & 7) ^ ((m > t[2]) & 1) ^ ((m > t[3]) & 3) ^
                      ((m > t[4]) & 1) ^ ((m > t[5]) & 7) ^ ((m > t[6]) & 1);
    return code | (nonzero & (x < 0) & 8);
  }
};

template <>
struct Encode<SymmetricInt<8>> {
  // Adding 1.5 * 2^23 leaves the integer, rounded to even, in the lowest bits.
  static Ints codes(Floats x) {
    const Floats low = x < -128.0f ? all(-128.0f) : x, clipped = low > 127.0f ? all(127.0f) : low;
    return bits(clipped + 12582912.0f) & (x == x) & 0xff;
  }
};

template <>
struct Encode<E4M3> {
  static Ints codes(Floats x) {
    constexpr std::int32_t kRebase = (127 - 7) << 23;
    const Ints m = bits(x) & 0x7fff'ffff, rebased = m - kRebase;
    const Ints normal = (rebased + 0x7'ffff + (rebased >> 20 & 1)) >> 20;
    const Ints subnormal = bits(magnitude(x) * 512.0f + 12582912.0f) & 0xff;
    const Ints code = m >= kRebase + (1 << 23) ? normal : subnormal;
    const Ints saturated = code > 0x7e ? Ints{} + 0x7e : code;
    return (m > 0x7f80'0000 ? Ints{} + 0x7f : saturated) | (bits(x) >> 24 & 0x80);
  }
};

template <class Element>
concept Encodable = requires(Floats x) {
  Encode<Element>::codes(x);
};

// The codes of `count` values, a multiple of four; units(Floats) puts them in units of their scale.
template <class Element, class Units>
inline void encode(const float* values, int count, std::int32_t* codes, Units&& units) {
  for (int i = 0; i < count; i += kLanes) {
    store(Encode<Element>::codes(units(load(values + i))), codes + i);
  }
}

inline Floats floats(Ints x) { return __builtin_convertvector(x, Floats); }
// Without the fraction, of values that 32 bits hold.
inline Ints truncate(Floats x) { return __builtin_convertvector(x, Ints); }
// To the nearest integer, halves away from zero; what is not within +-128 is zero.
inline Ints round_away(Floats value) {
  const Floats x = ((value >= -128.0f) & (value <= 128.0f)) ? value : Floats{};
  const Ints whole = truncate(x);
  const Floats rest = x - floats(whole);  // exact
  return whole - (rest >= 0.5f) + (rest <= -0.5f);
}
// Without the fraction, from 0 to `highest`; NaN is 0.
inline Ints truncate_to(Floats x, float highest) {
  const Floats positive = x > 0 ? x : Floats{};
  return truncate(positive >= highest ? all(highest) : positive);
}

// The largest magnitude of `count` values as its bits; infinity and NaN are above all numbers.
inline std::uint32_t largest(const float* values, std::int64_t count) {
  Ints most = {};
  for (std::int64_t i = 0; i < count / kLanes; ++i) {
    const Ints m = bits(load(values + i * kLanes)) & 0x7fff'ffff;
    most = m > most ? m : most;
  }
  if (const auto rest = static_cast<std::size_t>(count % kLanes)) {
    float last[kLanes] = {};
    std::memcpy(last, values + (count - count % kLanes), rest * sizeof(float));
    const Ints m = bits(load(last)) & 0x7fff'ffff;
    most = m > most ? m : most;
  }
  std::int32_t out = 0;
  for (int lane = 0; lane < kLanes; ++lane) out = most[lane] > out ? most[lane] : out;
  return static_cast<std::uint32_t>(out);
}

}  // namespace lanes

}  // namespace nib::inline v0
