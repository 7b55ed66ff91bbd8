// Room kernels: canonical arithmetic in scalar form: the oracle of every kernel, and the fma of CPUs that
// have none.
//
// fma_canonical(a, b, c) is a * b + c rounded once to nearest even, with subnormal operands taken as zero and
// a subnormal result (after rounding) flushed to zero: what FMA instructions do under FTZ and DAZ, and what
// the bf16 dot instruction does always. No libm, no dependence on the floating-point environment but
// round-to-nearest.
//
// AArch64 flushes otherwise: it looks at a result before rounding, so that what lies within 2^-151 below
// 2^-126 and would be rounded up to it becomes zero. Its kernels see such results and have them made anew
// (Neon::Exact); scalar code that may meet them goes through mul_canonical. Sums of two numbers are exact
// there, and quotients are never so near below a power of two: they need nothing.
#pragma once

#include <nibble/base/float16.hpp>
#include <nibble/kernels/packed.hpp>

#include <bit>
#include <cstdint>
#include <limits>

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
  if (magnitude < 0x1p-126) return sum < 0 ? -0x1p-126f : 0x1p-126f;
  return static_cast<float>(sum);
}

// Whether this processor flushes what rounding would have made the least normal number.
#if defined(__aarch64__)
inline constexpr bool kFlushesBeforeRounding = true;
#else
inline constexpr bool kFlushesBeforeRounding = false;
#endif

// a * b rounded once and flushed as above, under FTZ and DAZ.
[[gnu::always_inline]] constexpr float mul_canonical(float a, float b) {
  const float product = a * b;
  if constexpr (kFlushesBeforeRounding)
    if (product == 0 && a != 0 && b != 0) [[unlikely]]
      return fma_canonical(a, b, -0.0f);  // a zero keeps its sign
  return product;
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

// ---- int8 numerics

inline constexpr std::int64_t kInt8Group = 32;  // inputs that share a scale, from a multiple of it on

// Up to 32 inputs as whole numbers of -127 .. 127 times a scale, the largest magnitude over 127. Where that
// is below 2^-60 all are zero; where one is infinite or no number, so is the scale, and all outputs with it.
struct GroupInt8 {
  float scale = 0;
  float scaled_sum = 0;  // the sum of the whole numbers, times the scale
  std::int8_t codes[kInt8Group] = {};
};
constexpr GroupInt8 group_int8(const float* x, std::int64_t count) {
  GroupInt8 group;
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    if (!(magnitude <= std::numeric_limits<float>::max())) {
      group.scale = group.scaled_sum = std::numeric_limits<float>::quiet_NaN();
      return group;
    }
    largest = magnitude > largest ? magnitude : largest;
  }
  if (largest < 0x1p-60f) return group;
  group.scale = largest / 127.0f;
  const float inverse = 127.0f / largest;
  int sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float nearest = x[i] * inverse + 0x1.8p23f;  // to even: no bits are left below one
    group.codes[i] = static_cast<std::int8_t>(nearest - 0x1.8p23f);
    sum += group.codes[i];
  }
  group.scaled_sum = static_cast<float>(sum) * group.scale;
  return group;
}

// Weights that share a scale: code * step + minimum, the code a whole number.
struct StepsInt8 {
  float step, minimum;
};
// One output of a matrix product: for each run of `run` inputs (32 or 16, which divide a group) an exact sum,
// times the product of both scales, added to the chain; then, where the format has minima, the minimum times
// the scaled sum of the whole group. `codes(k)` gives an int, `steps(k)` those of the run that begins at k.
template <class Codes, class Steps>
constexpr float chain_int8(std::int64_t k, int run, bool minima, const float* x, Codes&& codes,
                           Steps&& steps) {
  float sum = 0;
  for (std::int64_t group = 0; group < k; group += kInt8Group) {
    const std::int64_t end = k - group < kInt8Group ? k : group + kInt8Group;
    const GroupInt8 inputs = group_int8(x + group, end - group);
    for (std::int64_t first = group; first < end; first += run) {
      int exact = 0;
      for (std::int64_t i = first; i < end && i < first + run; ++i)
        exact += codes(i) * inputs.codes[i - group];
      sum = fma_canonical(static_cast<float>(exact), fma_canonical(steps(first).step, inputs.scale, -0.0f),
                          sum);
    }
    if (minima) sum = fma_canonical(steps(group).minimum, inputs.scaled_sum, sum);
  }
  return sum + 0.0f;
}

// ---- sums by groups: bf16 numerics of codes whose scales bf16 does not hold

// A whole number counts so much in a sum, and its step as much less.
inline constexpr float kSumUnit = 0x1p24f;

// The sum of 32 inputs (zeros past the last), a tree: those 16 apart first, neighbours last.
constexpr float sum_of_group(const float* x, std::int64_t count) {
  float sums[kInt8Group] = {};
  for (std::int64_t i = 0; i < count; ++i) sums[i] = x[i];
  for (int width = 16; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  return sums[0];
}

// One output of a matrix product: for each run of `run` inputs (32 or 16) the chain of its codes and inputs,
// times the run's step, added to the chain over runs; then, where the format has minima, the minimum times
// the sum of the group's 32 inputs. `codes(k)` gives a f32, `steps(k)` those of the run that begins at k,
// `x(k)` a rounded input.
template <class Codes, class Steps, class X>
constexpr float chain_sums(std::int64_t k, int run, bool minima, Codes&& codes, Steps&& steps, X&& x) {
  float sum = 0;
  for (std::int64_t group = 0; group < k; group += kInt8Group) {
    const std::int64_t end = k - group < kInt8Group ? k : group + kInt8Group;
    for (std::int64_t first = group; first < end; first += run) {
      const float of_run = chain_canonical(
          end - first < run ? end - first : run, [&](std::int64_t i) { return codes(first + i); },
          [&](std::int64_t i) { return x(first + i); });
      sum = fma_canonical(of_run, steps(first).step, sum);
    }
    if (!minima) continue;
    float inputs[kInt8Group] = {};
    for (std::int64_t i = group; i < end; ++i) inputs[i - group] = x(i);
    sum = fma_canonical(steps(group).minimum, sum_of_group(inputs, end - group), sum);
  }
  return sum + 0.0f;
}

}  // namespace nib::inline v0
