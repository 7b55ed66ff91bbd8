#include <nibble/kernels/rope.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>

namespace nib::inline v0 {
namespace {

constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // ln 2 in two parts; the first times any exponent is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;
constexpr double kHalfPi = 0x1.921fb54442d18p+0;

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

// e^x for |x| < 700: x = n ln 2 + r, the Taylor series of e^r.
double exp_plain(double x) {
  const double shifted = x * 1.4426950408889634 + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double series = 1;
  for (int k = 14; k >= 1; --k) series = 1 + series * r / k;
  return series *
         std::bit_cast<double>(static_cast<std::uint64_t>(static_cast<std::int64_t>(n) + 1023) << 52);
}

struct CosSin {
  double cos, sin;
};

// For |x| < 2^25: the quarter turn is taken off in three parts (the first two with 33 bits, so that their
// products with the number of quarter turns are exact), then both series.
CosSin cos_sin(double x) {
  constexpr double kPart1 = 0x1.921fb54400000p+0, kPart2 = 0x1.0b4611a600000p-34,
                   kPart3 = 0x1.3198a2e037073p-69;
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

double floor_plain(double x) {
  const auto whole = static_cast<double>(static_cast<std::int64_t>(x));
  return whole > x ? whole - 1 : whole;
}

}  // namespace

double yarn_attention(double factor) { return factor <= 1 ? 1.0 : 0.1 * log_plain(factor) + 1.0; }

void rope_frequencies(double theta, int dim, const RopeScaling& scaling, std::span<float> frequencies) {
  const double log_theta = log_plain(theta);
  // The dimension at which a full context makes `turns` rotations.
  const auto dimension_of = [&](double turns) {
    return dim * log_plain(scaling.original_context / (turns * 4 * kHalfPi)) / (2 * log_theta);
  };
  double low = 0, high = 0;
  const bool ramped = scaling.factor != 1;
  if (ramped) {
    low = dimension_of(scaling.beta_fast);
    high = dimension_of(scaling.beta_slow);
    if (scaling.truncate) {
      low = floor_plain(low);
      high = -floor_plain(-high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(dim - 1));
    if (low == high) high += 0.001;
  }
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double plain = exp_plain(-2.0 * static_cast<double>(i) / dim * log_theta);
    const double ramp = ramped ? std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0) : 0.0;
    frequencies[i] = static_cast<float>(plain / scaling.factor * ramp + plain * (1 - ramp));
  }
}

void rope_angles(std::int64_t position, std::span<const float> frequencies, double attention, float* cos,
                 float* sin) {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const CosSin at = cos_sin(static_cast<double>(static_cast<float>(position) * frequencies[i]));
    cos[i] = static_cast<float>(at.cos * attention);
    sin[i] = static_cast<float>(at.sin * attention);
  }
}

}  // namespace nib::inline v0
