// Scale rules against their definitions: by logarithms, by trying every scale, by Triton's bit formula.
#include <nibble/formats/e2m1.hpp>
#include <nibble/formats/e8m0.hpp>
#include <nibble/formats/minifloat.hpp>
#include <nibble/formats/scale_rules.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include <doctest/doctest.h>

using nib::E2M1;
using nib::E8M0;
using nib::FloorScale;
using nib::LeastErrorScale;
using nib::Minifloat;
using nib::RoundUpScale;

namespace {

using E4M3 = Minifloat<4, 3, nib::NonFinite::nan>;
using E5M2 = Minifloat<5, 2, nib::NonFinite::ieee>;
using E3M2 = Minifloat<3, 2>;
using Tiny =
    Minifloat<2, 1, nib::NonFinite::none, nib::Overflow::saturate, 20>;  // its largest value is 6 * 2^-19

constexpr int kGroup = 32;

int clamped(int exponent) { return std::min(std::max(exponent, -127), 127) + 127; }

// A group of Gaussian values whose size is anywhere in the range of f32, some of them zero.
struct Group {
  float values[kGroup];
  explicit Group(std::mt19937& random) {
    std::normal_distribution<double> normal;
    const int exponent = static_cast<int>(random() % 270) - 145;
    for (float& value : values)
      value = random() % 8 ? static_cast<float>(std::ldexp(normal(random), exponent)) : 0.0f;
    for (float& value : values)
      if (!std::isfinite(value)) value = 1.0f;
    values[random() % kGroup] = static_cast<float>(std::ldexp(1.0, exponent));  // never all zero
    if (values[0] == 0.0f) values[0] = std::numeric_limits<float>::denorm_min();
  }
  double largest() const {
    double most = 0;
    for (const float value : values) most = std::max(most, std::fabs(static_cast<double>(value)));
    return most;
  }
};

template <class Element>
void check_power_rules(std::mt19937& random) {
  const double max = static_cast<double>(Element::max());
  std::uint32_t wrong_floor = 0, wrong_round_up = 0;
  for (int round = 0; round < 20'000; ++round) {
    const Group group(random);
    const double a = group.largest();
    wrong_floor +=
        FloorScale::choose<Element, E8M0>(group.values, kGroup) != clamped(std::ilogb(a) - std::ilogb(max));
    int exponent = -300;
    while (std::ldexp(max, exponent) < a) ++exponent;
    wrong_round_up += RoundUpScale::choose<Element, E8M0>(group.values, kGroup) != clamped(exponent);
  }
  CHECK(wrong_floor == 0);
  CHECK(wrong_round_up == 0);
}

double error_of(const float* values, int count, int code) {
  const double scale = std::ldexp(1.0, code - 127);
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    const double value = static_cast<double>(values[i]);
    double nearest = std::numeric_limits<double>::infinity();
    for (std::uint8_t level = 0; level < 16; ++level)
      nearest = std::min(nearest, std::fabs(value - scale * static_cast<double>(E2M1::decode(level))));
    sum += nearest * nearest;
  }
  return sum;
}

}  // namespace

TEST_CASE("FloorScale and RoundUpScale: by their definitions, for every element type") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  check_power_rules<E2M1>(random);
  check_power_rules<E3M2>(random);
  check_power_rules<E4M3>(random);
  check_power_rules<E5M2>(random);
  check_power_rules<Tiny>(random);
}

TEST_CASE("RoundUpScale: equals Triton's bit formula wherever amax / 6 is a normal float") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::uint32_t wrong = 0;
  const auto compare = [&](float a) {
    if (!(a >= 0x1p-123f) || !std::isfinite(a)) return;
    const auto third = std::bit_cast<std::uint32_t>(a / 6.0f);
    const std::uint32_t formula = ((third + 0x007f'ffffu) & 0x7f80'0000u) >> 23;
    wrong += RoundUpScale::choose<E2M1, E8M0>(&a, 1) != formula;
  };
  for (int i = 0; i < 500'000; ++i) compare(std::bit_cast<float>(static_cast<std::uint32_t>(random() >> 1)));
  for (int exponent = -120; exponent < 126; ++exponent)
    for (int step = -3; step <= 3; ++step)
      compare(std::bit_cast<float>(std::bit_cast<std::uint32_t>(std::ldexp(6.0f, exponent)) +
                                   static_cast<std::uint32_t>(step)));
  CHECK(wrong == 0);
}

TEST_CASE("LeastErrorScale: no other scale does better") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::uint32_t wrong = 0, below_floor = 0;
  for (int round = 0; round < 2'000; ++round) {
    Group group(random);
    if (round % 2) {  // one large value among equal small ones: a clipped maximum can pay
      const float small = std::ldexp(0.25f, static_cast<int>(random() % 200) - 100);
      for (float& value : group.values) value = small;
      group.values[random() % kGroup] = small * static_cast<float>(1 + random() % 40);
    }
    const int chosen = LeastErrorScale::choose<E2M1, E8M0>(group.values, kGroup);
    const double least = error_of(group.values, kGroup, chosen);
    for (int code = 0; code < 255; ++code) wrong += error_of(group.values, kGroup, code) < least;
    below_floor += chosen < FloorScale::choose<E2M1, E8M0>(group.values, kGroup);
  }
  CHECK(wrong == 0);
  CHECK(below_floor > 0);  // the search went where the other rules never go
}

TEST_CASE("LeastErrorScale: in a large group the second step down can pay where the first does not") {
  float values[2048];
  for (float& value : values) value = 1.0f;
  values[7] = 40.0f;
  const int chosen = LeastErrorScale::choose<E2M1, E8M0>(values, 2048);
  for (int code = 0; code < 255; ++code)
    CHECK(error_of(values, 2048, code) >= error_of(values, 2048, chosen));
  CHECK(chosen < RoundUpScale::choose<E2M1, E8M0>(values, 2048) - 1);
}

TEST_CASE("every rule: zeros, non-finite values, the smallest and the largest floats") {
  const auto check = [](auto rule) {
    using Rule = decltype(rule);
    CAPTURE(std::string(Rule::name));
    const float zeros[2] = {0.0f, -0.0f};
    CHECK(Rule::template choose<E2M1, E8M0>(zeros, 2) == 0);
    for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                            std::nanf(""), -std::nanf("")}) {
      const float group[3] = {1.0f, bad, 2.0f};
      CHECK(Rule::template choose<E2M1, E8M0>(group, 3) == E8M0::nan);
    }
    const float smallest = std::numeric_limits<float>::denorm_min();
    CHECK(Rule::template choose<E2M1, E8M0>(&smallest, 1) == 0);
    const float largest = std::numeric_limits<float>::max();
    const int code = Rule::template choose<E2M1, E8M0>(&largest, 1);
    CHECK(code >= 252);
    CHECK(code <= 253);
  };
  check(FloorScale{});
  check(RoundUpScale{});
  check(LeastErrorScale{});
}
