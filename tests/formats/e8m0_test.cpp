// E8M0: every code, the nearest power of two, and division by a scale.
#include <nibble/formats/e8m0.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include <doctest/doctest.h>

using nib::E8M0;

TEST_CASE("E8M0: every code is its power of two and comes back") {
  for (int code = 0; code < 255; ++code) {
    const float value = E8M0::decode(static_cast<std::uint8_t>(code));
    CHECK(static_cast<double>(value) == std::ldexp(1.0, code - 127));
    CHECK(E8M0::encode(value) == code);
    CHECK(E8M0::from_exponent(code - 127) == code);
  }
  CHECK(std::isnan(E8M0::decode(255)));
  static_assert(std::bit_cast<std::uint32_t>(E8M0::decode(0)) == 0x0040'0000u);
  static_assert(to_float(E8M0{}) == 1.0f && to_float(E8M0::from(3.0f)) == 4.0f);
}

TEST_CASE("E8M0: exponents clamp") {
  static_assert(E8M0::from_exponent(-128) == 0 && E8M0::from_exponent(std::numeric_limits<int>::min()) == 0);
  static_assert(E8M0::from_exponent(128) == 254 &&
                E8M0::from_exponent(std::numeric_limits<int>::max()) == 254);
}

TEST_CASE("E8M0: encodes the nearest power of two, ties up, and NaN what has none") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::uint32_t wrong = 0;
  for (int i = 0; i < 500'000; ++i) {
    const auto word = static_cast<std::uint32_t>(random());
    const float value = std::bit_cast<float>(word);
    int expected = 255;
    if (value >= 0x1p-126f) {
      const int exponent = std::ilogb(value);
      const double up = std::ldexp(1.0, exponent + 1) - static_cast<double>(value);
      const double down = static_cast<double>(value) - std::ldexp(1.0, exponent);
      expected = std::min(exponent + 127 + (up <= down), 255);
    } else if (value > 0) {
      expected = value <= 0x1p-127f ? 0 : 1;
    }
    wrong += E8M0::encode(value) != expected;
  }
  CHECK(wrong == 0);
  for (const float value : {0.0f, -0.0f, -1.0f, std::nanf(""), std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::max()})
    CHECK(E8M0::encode(value) == E8M0::nan);
  CHECK(E8M0::encode(0x1.7ffffep127f) == 254);
  CHECK(E8M0::encode(0x1.8p127f) == 255);
  CHECK(E8M0::encode(std::numeric_limits<float>::denorm_min()) == 0);
}

TEST_CASE("E8M0: quotient is exact where f32 can say it") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::uint32_t wrong = 0;
  for (int i = 0; i < 500'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    const auto code = static_cast<std::uint8_t>(random() % 255);
    if (!std::isfinite(value)) continue;
    const double exact = std::ldexp(static_cast<double>(value), 127 - code);
    wrong += E8M0::quotient(value, code) != static_cast<float>(exact);
  }
  CHECK(wrong == 0);
  CHECK(E8M0::quotient(5.0f, E8M0::nan) == 0.0f);
}
