// Room kernels: canonical arithmetic in scalar form: the oracle of every kernel, and the fma of CPUs that
// have none.
//
// fma_canonical(a, b, c) is a * b + c rounded once to nearest even, with subnormal operands taken as zero and
// a subnormal result (after rounding) flushed to zero: what FMA instructions do under FTZ and DAZ, and what
// the bf16 dot instruction does always. No libm, no dependence on the floating-point environment but
// round-to-nearest.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/kernels/packed.hpp>

#include <bit>
#include <cstdint>

namespace nib::inline v0 {

// Zero (of the same sign) for a subnormal, the value itself otherwise.
constexpr float flush_subnormal(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return (bits & 0x7f80'0000u) == 0 ? std::bit_cast<float>(bits & 0x8000'0000u) : value;
}

// a * b + c in double, rounded to odd: the last bit tells that something was lost, so that one more rounding
// to f32 is the correct one (the product of two floats is exact in double).
constexpr double fma_to_odd(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b);
  const double sum = product + static_cast<double>(c);
  const auto bits = std::bit_cast<std::uint64_t>(sum);
  if ((bits & 0x7ff0'0000'0000'0000u) == 0x7ff0'0000'0000'0000u || (bits & 1u)) return sum;
  const double shared = sum - product;
  const double lost = (product - (sum - shared)) + (static_cast<double>(c) - shared);
  if (lost == 0) return sum;
  const bool outward = (lost > 0) == (sum > 0);
  return std::bit_cast<double>(outward ? bits + 1 : bits - 1);
}

[[gnu::always_inline]] constexpr float fma_canonical(float a, float b, float c) {
  const double sum = fma_to_odd(flush_subnormal(a), flush_subnormal(b), flush_subnormal(c));
  const double magnitude = sum < 0 ? -sum : sum;
  // Tiny after rounding to 24 bits: below the midpoint of the largest subnormal step and 2^-126.
  if (magnitude < 0x1.ffffffp-127)
    return std::bit_cast<float>(static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(sum) >> 63) << 31);
  return static_cast<float>(sum);
}

// One output of a matrix product: the chain over k in canonical order. `weight(k)` and `x(k)` give f32
// values; k past the end (to a whole octet) counts as zero times zero. A sum of zero is positive: zeros past
// the end are negative in a kernel whose last scale is.
template <class Weight, class X>
constexpr float chain_canonical(std::int64_t k, Weight&& weight, X&& x) {
  float sum = 0;
  for (std::int64_t octet = 0; octet < k; octet += kOctet)
    for (const int offset : kChainOrder) {
      const std::int64_t i = octet + offset;
      sum = i < k ? fma_canonical(weight(i), x(i), sum) : fma_canonical(0.0f, 0.0f, sum);
    }
  return sum + 0.0f;
}

// What packing does to an activation under bf16 numerics: flushed below 2^-60, rounded to bf16.
constexpr float activation_bf16(float value) {
  const float magnitude = value < 0 ? -value : value;
  if (magnitude < 0x1p-60f) return 0.0f;
  return to_float(to_bf16(value));
}

}  // namespace nib::inline v0
