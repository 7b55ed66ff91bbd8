// Random numbers for tests.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>

#include <doctest/doctest.h>

namespace nib::test {

// Random numbers, other ones in every run: a test that fails prints its seed, and NIBBLE_TEST_SEED repeats
// it.
class Random {
 public:
  Random() {
    const char* fixed = std::getenv("NIBBLE_TEST_SEED");
    seed = fixed ? static_cast<std::uint32_t>(std::strtoul(fixed, nullptr, 10)) : std::random_device{}();
    engine_.seed(seed);
  }

  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  // 0 .. end - 1
  int below(int end) { return static_cast<int>(bits() % static_cast<std::uint32_t>(end)); }
  bool chance(int percent) { return below(100) < percent; }
  float normal() { return static_cast<float>(normal_(engine_)); }
  // Any finite float with an exponent of 2^lowest .. 2^highest.
  float spread(int lowest, int highest) {
    const float mantissa = std::bit_cast<float>(0x3f80'0000u | (bits() & 0x807f'ffffu));
    return std::ldexp(mantissa, lowest + below(highest - lowest + 1));
  }

  std::uint32_t seed;

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};
#define NIB_RANDOM(name)    \
  ::nib::test::Random name; \
  CAPTURE(name.seed)

}  // namespace nib::test
