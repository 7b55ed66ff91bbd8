// Room base: small integer arithmetic that every room needs, overflow-checked where a file decides the
// numbers.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>

namespace nib::inline v0 {

// ceil(a / b) for b > 0.
template <std::integral T>
constexpr T ceil_div(T a, T b) {
  return static_cast<T>(a / b + (a % b != 0 ? 1 : 0));
}

// The smallest multiple of `step` that is at least `a`.
template <std::integral T>
constexpr T round_up(T a, T step) {
  return static_cast<T>(ceil_div(a, step) * step);
}

// a * b and a + b, or nothing when 64 bits do not hold it.
constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return std::nullopt;
  return a * b;
}
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  if (a > std::numeric_limits<std::uint64_t>::max() - b) return std::nullopt;
  return a + b;
}

// A byte holds two 4-bit codes; `low` is bits 3..0.
constexpr std::uint8_t low_nibble(std::uint8_t byte) { return byte & 0x0f; }
constexpr std::uint8_t high_nibble(std::uint8_t byte) { return static_cast<std::uint8_t>(byte >> 4); }
constexpr std::uint8_t join_nibbles(std::uint8_t low, std::uint8_t high) {
  return static_cast<std::uint8_t>((low & 0x0f) | (high << 4));
}

}  // namespace nib::inline v0
