// E2M1's table and thresholds against the general Minifloat<2, 1> and the published thresholds.
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/minifloat.hpp>

#include <bit>
#include <cstdint>
#include <random>

#include <doctest/doctest.h>

using nib::E2M1;
using General = nib::Minifloat<2, 1>;

TEST_CASE("E2M1: is Minifloat<2, 1>, every code") {
  for (std::uint8_t code = 0; code < 16; ++code) {
    CHECK(std::bit_cast<std::uint32_t>(E2M1::decode(code)) ==
          std::bit_cast<std::uint32_t>(General::decode(code)));
    CHECK(E2M1::encode(E2M1::decode(code)) == code);
    CHECK(E2M1::decode(static_cast<std::uint8_t>(code | 0xf0)) == E2M1::decode(code));
  }
  static_assert(E2M1::max() == General::max());
}

TEST_CASE("E2M1: is Minifloat<2, 1>, samples of all f32 and every float from 0.2 to 6.1") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::uint32_t wrong = 0;
  const auto compare = [&](std::uint32_t word) {
    const float value = std::bit_cast<float>(word);
    wrong += E2M1::encode(value) != General::encode(value);
  };
  for (auto word = std::bit_cast<std::uint32_t>(0.2f); word < std::bit_cast<std::uint32_t>(6.1f); word += 3) {
    compare(word);
    compare(word | 0x8000'0000u);
  }
  std::mt19937 random(seed);
  for (int i = 0; i < 2'000'000; ++i) compare(static_cast<std::uint32_t>(random()));
  for (const std::uint32_t word :
       {0x7f80'0000u, 0xff80'0000u, 0x7fc0'0000u, 0xffc0'0000u, 0x7f80'0001u, 1u, 0x8000'0000u})
    compare(word);
  CHECK(wrong == 0);
}

TEST_CASE("E2M1: at the midpoints the even code wins") {
  static_assert(E2M1::encode(0.25f) == 0 && E2M1::encode(0.75f) == 2 && E2M1::encode(1.25f) == 2);
  static_assert(E2M1::encode(1.75f) == 4 && E2M1::encode(2.5f) == 4 && E2M1::encode(3.5f) == 6);
  static_assert(E2M1::encode(5.0f) == 6 && E2M1::encode(7.0f) == 7 && E2M1::encode(-0.1f) == 8);
  static_assert(to_float(E2M1::from(-2.9f)) == -3.0f && E2M1::from(0.0f) == E2M1{});
}
