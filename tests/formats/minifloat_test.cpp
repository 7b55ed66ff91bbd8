// Minifloat<E, M> against its definition in double, for every code of every format and at every turn of
// rounding.
#include "support/number_oracle.hpp"
#include <nibble/formats/minifloat.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

#include <doctest/doctest.h>

using nib::Minifloat;
using nib::NonFinite;
using nib::Overflow;

namespace {

constexpr float kInfinity = std::bit_cast<float>(0x7f80'0000u);
constexpr float kNan = std::bit_cast<float>(0x7fc0'0000u);

// A format, and again what it is made of, for the oracle.
template <int E, int M, NonFinite N, Overflow O, int Bias>
struct Tester {
  using Number = Minifloat<E, M, N, O, Bias>;
  using Code = typename Number::Code;

  static constexpr std::uint32_t all_ones = (1u << (E + M)) - 1u;
  static constexpr std::uint32_t finite = N == NonFinite::none  ? all_ones
                                          : N == NonFinite::nan ? all_ones - 1
                                                                : (((1u << E) - 1) << M) - 1;
  nib::test::NumberOracle oracle{E, M, Bias, finite};

  // The code that the definition gives to a finite or infinite value.
  std::uint32_t expected(float value) const {
    std::uint32_t code = oracle.nearest(std::fabs(static_cast<double>(value)));
    if (code > finite && (O == Overflow::saturate || N == NonFinite::none)) code = finite;
    return code | (std::signbit(value) ? oracle.sign() : 0);
  }
  bool encodes_right(float value) const { return Number::encode(value) == expected(value); }

  void check(std::uint32_t seed) const {
    std::uint32_t wrong_values = 0, wrong_returns = 0, wrong_turns = 0, wrong_samples = 0;
    for (std::uint32_t code = 0; code <= 2 * all_ones + 1; ++code) {
      const float value = Number::decode(static_cast<Code>(code));
      const std::uint32_t magnitude = code & all_ones;
      if (magnitude > finite) {
        const bool infinite = N == NonFinite::ieee && magnitude == finite + 1;
        wrong_values += infinite ? !std::isinf(value) : !std::isnan(value);
      } else {
        wrong_values += static_cast<double>(value) != oracle.value(code);
        wrong_returns += Number::encode(value) != code;
      }
      wrong_values += std::signbit(value) != ((code & oracle.sign()) != 0);
      if (magnitude > finite) continue;
      const double next = oracle.value(magnitude + 1);
      const float turn = static_cast<float>((oracle.value(magnitude) + next) / 2);
      for (const float near : {turn, std::nextafter(turn, 0.0f), std::nextafter(turn, kInfinity)})
        wrong_turns += !encodes_right(near) + !encodes_right(-near);
    }
    std::mt19937 random(seed);
    for (int i = 0; i < 200'000; ++i) {
      // Half of all f32, half of the range of the format.
      const auto word = static_cast<std::uint32_t>(random());
      const float fraction = std::bit_cast<float>((word & 0x807f'ffffu) | 0x3f80'0000u);
      const int exponent = static_cast<int>(random() % ((1u << E) + M + 4)) - Bias - M - 2;
      const float value = i % 2 ? std::bit_cast<float>(word) : std::ldexp(fraction, exponent);
      if (!std::isnan(value)) wrong_samples += !encodes_right(value);
    }
    CHECK(wrong_values == 0);
    CHECK(wrong_returns == 0);
    CHECK(wrong_turns == 0);
    CHECK(wrong_samples == 0);
    CHECK(encodes_right(kInfinity));
    CHECK(encodes_right(-kInfinity));
    CHECK(encodes_right(std::bit_cast<float>(1u)));
    CHECK(static_cast<double>(Number::max()) == oracle.value(finite));

    const float nan = Number::decode(Number::encode(kNan)), minus_nan = Number::decode(Number::encode(-kNan));
    if (N == NonFinite::none) {
      CHECK((nan == 0.0f && std::signbit(nan)));
      CHECK((minus_nan == 0.0f && !std::signbit(minus_nan)));
    } else {
      CHECK((std::isnan(nan) && !std::signbit(nan)));
      CHECK((std::isnan(minus_nan) && std::signbit(minus_nan)));
    }
  }
};

template <int E, int M, NonFinite N = NonFinite::none, Overflow O = Overflow::saturate,
          int Bias = (1 << (E - 1)) - 1>
void check_format() {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(E);
  CAPTURE(M);
  CAPTURE(seed);
  Tester<E, M, N, O, Bias>{}.check(seed);
}

}  // namespace

TEST_CASE("Minifloat: the formats of OCP MX and OFP8, both ways of overflowing") {
  check_format<2, 1>();
  check_format<2, 3>();
  check_format<3, 2>();
  check_format<4, 3, NonFinite::nan>();
  check_format<4, 3, NonFinite::nan, Overflow::special>();
  check_format<5, 2, NonFinite::ieee>();
  check_format<5, 2, NonFinite::ieee, Overflow::special>();
}

TEST_CASE("Minifloat: other splits, 16-bit formats, all biases that f32 can hold") {
  check_format<3, 0>();
  check_format<1, 2, NonFinite::none, Overflow::saturate, 1>();
  check_format<1, 6, NonFinite::none, Overflow::saturate, 0>();
  check_format<4, 3, NonFinite::ieee, Overflow::special>();
  check_format<5, 10, NonFinite::ieee, Overflow::special>();
  check_format<8, 7, NonFinite::ieee, Overflow::special>();
  check_format<8, 7, NonFinite::ieee>();
  check_format<5, 2, NonFinite::none, Overflow::saturate, 126>();  // its subnormals are f32's
  check_format<5, 2, NonFinite::none, Overflow::saturate, 127>();
}

TEST_CASE("Minifloat: published facts") {
  using E4M3 = Minifloat<4, 3, NonFinite::nan>;
  using E4M3Special = Minifloat<4, 3, NonFinite::nan, Overflow::special>;
  using E5M2Special = Minifloat<5, 2, NonFinite::ieee, Overflow::special>;
  static_assert(E4M3::max() == 448 && E4M3::decode(0x08) == 0x1p-6f && E4M3::decode(0x01) == 0x1p-9f);
  static_assert(E4M3::encode(1.0f) == 0x38 && E4M3::encode(1e9f) == 0x7e && E4M3::encode(-1e9f) == 0xfe);
  static_assert(E4M3Special::encode(464.0f) == 0x7e && E4M3Special::encode(464.1f) == 0x7f);
  static_assert(E5M2Special::max() == 57344 && E5M2Special::encode(61439.0f) == 0x7b);
  static_assert(E5M2Special::encode(61440.0f) == 0x7c && E5M2Special::encode(-61440.0f) == 0xfc);
  static_assert(Minifloat<3, 2>::max() == 28 && Minifloat<2, 3>::max() == 7.5f &&
                Minifloat<2, 1>::max() == 6);

  // E3M0 has no subnormals, E1M2 is the grid of integers / 4 (specification sheet, section 2).
  const float e3m0[] = {0, 0.25f, 0.5f, 1, 2, 4, 8, 16};
  for (std::uint8_t code = 0; code < 8; ++code) {
    CHECK(Minifloat<3, 0>::decode(code) == e3m0[code]);
    CHECK(Minifloat<1, 2, NonFinite::none, Overflow::saturate, 1>::decode(code) ==
          static_cast<float>(code) / 4);
  }
}

TEST_CASE("Minifloat: as a value") {
  using E3M2 = Minifloat<3, 2>;
  static_assert(to_float(E3M2::from(0.3f)) == 0.3125f);
  static_assert(E3M2::from(28.0f) == E3M2{0x1f});
  static_assert(E3M2::from(-0.0f) != E3M2::from(0.0f));
}
