#include <nibble/kernels/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <numbers>

#include <nibble/base/plain_math.hpp>

namespace nib::inline v0 {
namespace {

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
    return dim * log_plain(scaling.original_context / (turns * 2 * std::numbers::pi)) / (2 * log_theta);
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
