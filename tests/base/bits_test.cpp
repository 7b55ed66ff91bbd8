// Small integer arithmetic, mostly at its limits.
#include <nibble/base/bits.hpp>

#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

__extension__ typedef unsigned __int128 Wide;  // holds every sum and product of 64 bits

TEST_CASE("ceil_div and round_up against counting") {
  for (int a = 0; a <= 200; ++a)
    for (int b = 1; b <= 70; ++b) {
      int count = 0;
      while (count * b < a) ++count;
      REQUIRE(nib::ceil_div(a, b) == count);
      REQUIRE(nib::round_up(a, b) == count * b);
    }
  constexpr auto kMost = std::numeric_limits<std::uint64_t>::max();
  static_assert(nib::ceil_div(kMost, std::uint64_t{1}) == kMost);  // a + b - 1 would wrap
  static_assert(nib::ceil_div(kMost, kMost) == 1);
}

TEST_CASE("checked arithmetic gives nothing exactly when 64 bits do not hold the result") {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t samples[] = {
      0,         1,    2, 3, 0xffff'ffff, 0x1'0000'0000, 0x1'0000'0001, kMost / 3, kMost / 2, kMost / 2 + 1,
      kMost - 1, kMost};
  for (const std::uint64_t a : samples)
    for (const std::uint64_t b : samples) {
      const auto product = static_cast<Wide>(a) * b;
      const auto sum = static_cast<Wide>(a) + b;
      const auto mul = nib::checked_mul(a, b);
      const auto add = nib::checked_add(a, b);
      REQUIRE(mul.has_value() == (product <= kMost));
      REQUIRE(add.has_value() == (sum <= kMost));
      if (mul) REQUIRE(*mul == static_cast<std::uint64_t>(product));
      if (add) REQUIRE(*add == static_cast<std::uint64_t>(sum));
    }
}

TEST_CASE("nibbles: low is bits 3..0, and joining undoes splitting") {
  static_assert(nib::low_nibble(0xa5) == 0x5 && nib::high_nibble(0xa5) == 0xa);
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<std::uint8_t>(byte);
    REQUIRE(nib::join_nibbles(nib::low_nibble(value), nib::high_nibble(value)) == value);
  }
}
