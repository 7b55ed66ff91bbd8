// bf16 and f16 against their definitions, computed in double.
#include "support/number_oracle.hpp"
#include <nibble/base/float16.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

#include <doctest/doctest.h>

namespace {

using nib::test::NumberOracle;

const NumberOracle& f16_oracle() {
  static const NumberOracle oracle(5, 10, 15, 0x7bff);
  return oracle;
}
const NumberOracle& bf16_oracle() {
  static const NumberOracle oracle(8, 7, 127, 0x7f7f);
  return oracle;
}

std::uint16_t bits_of(nib::f16 value) { return value.bits; }
std::uint16_t bits_of(nib::bf16 value) { return value.bits; }

// Every code widens to its value, and narrows back to itself.
template <class T>
std::uint32_t wrong_codes(const NumberOracle& oracle, T (*narrow)(float)) {
  std::uint32_t wrong = 0;
  const std::uint32_t infinity = oracle.finite() + 1;
  for (std::uint32_t code = 0; code < 0x10000; ++code) {
    const float value = nib::to_float(T{static_cast<std::uint16_t>(code)});
    const std::uint32_t magnitude = code & 0x7fff;
    const bool negative = code & 0x8000;
    bool right = std::signbit(value) == negative;
    if (magnitude > infinity)
      right = right && std::isnan(value);
    else if (magnitude == infinity)
      right = right && std::isinf(value);
    else
      right = right && static_cast<double>(value) == oracle.value(code);
    const std::uint16_t back = bits_of(narrow(value));
    if (magnitude > infinity)
      right = right && (back & 0x7fff) > infinity;
    else
      right = right && back == code;
    wrong += !right;
  }
  return wrong;
}

template <class T>
bool narrows_right(const NumberOracle& oracle, T (*narrow)(float), std::uint32_t word) {
  const float value = std::bit_cast<float>(word);
  const std::uint16_t code = bits_of(narrow(value));
  const std::uint32_t sign = word >> 31 ? 0x8000 : 0;
  if (std::isnan(value)) return std::isnan(nib::to_float(T{code})) && (code & 0x8000u) == sign;
  return code == (sign | oracle.nearest(std::fabs(static_cast<double>(value))));
}

// Around every code's value and every midpoint of two codes, where rounding turns.
template <class T>
std::uint32_t wrong_at_turns(const NumberOracle& oracle, T (*narrow)(float)) {
  std::uint32_t wrong = 0;
  for (std::uint32_t code = 0; code <= oracle.finite(); ++code) {
    const double here = oracle.value(code),
                 next = std::min(oracle.nearest(here) == code ? oracle.value(code + 1) : here, 3.4e38);
    for (const double point : {here, here / 2 + next / 2}) {
      const auto word = std::bit_cast<std::uint32_t>(static_cast<float>(point));
      for (const std::uint32_t near : {word - 1, word, word + 1}) {
        if (near > 0x7f80'0000u) continue;
        wrong += !narrows_right(oracle, narrow, near);
        wrong += !narrows_right(oracle, narrow, near | 0x8000'0000u);
      }
    }
  }
  return wrong;
}

// All of f32 in steps from a random start, and random words.
template <class T>
std::uint32_t wrong_among_samples(const NumberOracle& oracle, T (*narrow)(float), std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uint32_t wrong = 0;
  for (std::uint64_t word = random() % 2003; word < (std::uint64_t{1} << 32); word += 2003)
    wrong += !narrows_right(oracle, narrow, static_cast<std::uint32_t>(word));
  for (int i = 0; i < 500'000; ++i)
    wrong += !narrows_right(oracle, narrow, static_cast<std::uint32_t>(random()));
  return wrong;
}

}  // namespace

TEST_CASE("f16: every code is its value and comes back") {
  CHECK(wrong_codes<nib::f16>(f16_oracle(), nib::to_f16) == 0);
}
TEST_CASE("bf16: every code is its value and comes back") {
  CHECK(wrong_codes<nib::bf16>(bf16_oracle(), nib::to_bf16) == 0);
}

TEST_CASE("f16: rounds to nearest even around every value and midpoint") {
  CHECK(wrong_at_turns<nib::f16>(f16_oracle(), nib::to_f16) == 0);
}
TEST_CASE("bf16: rounds to nearest even around every value and midpoint") {
  CHECK(wrong_at_turns<nib::bf16>(bf16_oracle(), nib::to_bf16) == 0);
}

TEST_CASE("f16 and bf16: samples of all f32") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  CHECK(wrong_among_samples<nib::f16>(f16_oracle(), nib::to_f16, seed) == 0);
  CHECK(wrong_among_samples<nib::bf16>(bf16_oracle(), nib::to_bf16, seed) == 0);
}

TEST_CASE("f16 and bf16: published facts") {
  static_assert(nib::to_f16(1.0f).bits == 0x3c00);
  static_assert(nib::to_f16(65504.0f).bits == 0x7bff);
  static_assert(nib::to_f16(65520.0f).bits == 0x7c00);
  static_assert(nib::to_f16(0x1p-25f).bits == 0x0000);
  static_assert(nib::to_f16(0x1.000002p-25f).bits == 0x0001);
  static_assert(nib::to_float(nib::f16{0x0001}) == 0x1p-24f);
  static_assert(nib::to_bf16(1.0f).bits == 0x3f80);
  static_assert(nib::to_bf16(1.00390625f).bits == 0x3f80);  // half way: to even
  static_assert(nib::to_bf16(1.01171875f).bits == 0x3f82);
  CHECK(nib::to_bf16(3.4e38f).bits == 0x7f80);
}
