#include <nibble/base/plain_math.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {
namespace {

constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // ln 2 in two parts; the first times any exponent is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;
constexpr double kHalfPi = 0x1.921fb54442d18p+0;

constexpr std::array kInverseFactorials = [] {
  std::array<double, 15> inverse{};
  double factorial = 1;
  for (int k = 0; k < 15; ++k) {
    inverse[static_cast<std::size_t>(k)] = 1 / factorial;
    factorial *= k + 1;
  }
  return inverse;
}();

}  // namespace

// ln x for x > 0: x = 2^e m with m in [1/sqrt 2, sqrt 2), ln m = 2 artanh((m - 1) / (m + 1)).
double log_plain(double x) {
  auto bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000f'ffff'ffff'ffffu) | 0x3ff0'0000'0000'0000u);
  if (m > 1.4142135623730951) {
    m /= 2;
    ++exponent;
  }
  const double t = (m - 1) / (m + 1), t2 = t * t;
  double series = 0;
  for (int n = 23; n >= 1; n -= 2) series = series * t2 + 1.0 / n;
  return exponent * kLn2High + (2 * t * series + exponent * kLn2Low);
}

// For |x| < 700: x = n ln 2 + r, the Taylor series of e^r. n stands in the low bits of `shifted`.
double exp_plain(double x) {
  const double shifted = x * 1.4426950408889634 + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double series = kInverseFactorials[14];
  for (std::size_t k = 14; k-- > 0;) series = series * r + kInverseFactorials[k];
  return series * std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023) << 52);
}

// For |x| < 2^25: the quarter turn is taken off in three parts (the first two short enough that their
// products with the number of quarter turns are exact), then both series.
CosSin cos_sin(double x) {
  constexpr double kPart1 = 0x1.921fb54000000p+0, kPart2 = 0x1.10b4611000000p-30,
                   kPart3 = 0x1.4c4c6628b80dcp-59;
  const double shifted = x / kHalfPi + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const double r = ((x - n * kPart1) - n * kPart2) - n * kPart3;
  const double r2 = r * r;
  double c = 1, s = 1;
  for (int k = 16; k >= 2; k -= 2) {
    c = 1 - c * r2 / (k * (k - 1));
    s = 1 - s * r2 / (k * (k + 1));
  }
  s *= r;
  switch (static_cast<std::int64_t>(n) & 3) {
    case 0:
      return {c, s};
    case 1:
      return {-s, c};
    case 2:
      return {-c, -s};
    default:
      return {s, -c};
  }
}

}  // namespace nib::inline v0
